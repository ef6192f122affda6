"""MSRs that only hold what was written, and their reset values (AMD APM volume 2, appendix A; BKDG).

Native code holds those that mean something (`helpers.msr`); these are answered through the callback. Any other number
raises #GP, as the book says, and is counted; QEMU reads zero there.
"""

RESET_VALUES = {
    0xC0010010: 0,  # SYSCFG: no DRAM-type MTRR extensions, no memory encryption
    0xC0010015: 0,  # HWCR
    0xC001001F: 0,  # NB_CFG
    0xC0010055: 0,  # interrupt pending and CMP-halt
    0xC0011020: 0,  # LS_CFG
    0xC0011022: 0,  # DC_CFG
    0xC0011023: 0,  # BU_CFG
    0xC0011029: 0,  # DE_CFG
}


class RareMsrs:
    """One vCPU's."""

    def __init__(self) -> None:
        self._values = dict(RESET_VALUES)

    def read(self, number: int) -> int | None:
        """The value, or None: no such register."""
        return self._values.get(number)

    def write(self, number: int, value: int) -> bool:
        if number not in self._values:
            return False
        self._values[number] = value
        return True
