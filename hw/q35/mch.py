"""82G33/Q35 memory controller hub, 00:00.0: ECAM window, PAM shadowing, SMRAM (Intel 3 Series data sheet, 5.1).

The registers that move memory act on the machine's `AddressSpace`.
"""

from __future__ import annotations

from hw.core.bus import AddressSpace
from hw.core.flatview import Region
from hw.core.log import GuestLog
from hw.core.regs import RO, RW, Field, Reg, RegFile, RegMap, reserved
from hw.pci.config import CONFIG_SIZE, type0_header
from hw.pci.host import Ecam

PAM_FIRST = 0x90
ECAM_SIZES = (256 << 20, 128 << 20, 64 << 20)
SMRAM_D_OPEN, SMRAM_D_LCK = 1 << 6, 1 << 4
SMRAM_BASE, SMRAM_SIZE = 0xA_0000, 0x2_0000
PAM_READ, PAM_WRITE = 1, 2
EXT_TSEG_MIB, EXT_TSEG_QUERY = 16, 0xFFFF  # QEMU's extension: firmware asks how large a TSEG may be


def _pam(index: int) -> Reg:
    if index == 0:
        return Reg(PAM_FIRST, "PAM0", 1, (reserved(4), Field("HIENABLE", 2), reserved(2)))
    fields = (Field("LOENABLE", 2), reserved(2), Field("HIENABLE", 2), reserved(2))
    return Reg(PAM_FIRST + index, f"PAM{index}", 1, fields)


MAP = RegMap(
    CONFIG_SIZE,
    (
        *type0_header(0x8086, 0x29C0, class_code=0x06_00_00),
        Reg(0x50, "EXT_TSEG_MBYTES", 2, (Field("EXT_TSEG_MBYTES", 16, RW, EXT_TSEG_MIB),)),
        Reg(
            0x60,
            "PCIEXBAR",
            8,
            (
                Field("PCIEXBAREN", 1),
                Field("LENGTH", 2),
                reserved(23),
                Field("BASE", 10, reset=0xB000_0000 >> 26),
                reserved(28),
            ),
        ),
        *(_pam(i) for i in range(7)),
        Reg(
            0x9D,
            "SMRAM",
            1,
            (
                Field("C_BASE_SEG", 3, RO, 2),
                Field("G_SMRAME", 1),
                Field("D_LCK", 1),
                Field("D_CLS", 1),
                Field("D_OPEN", 1),
                reserved(1),
            ),
        ),
        Reg(
            0x9E,
            "ESMRAMC",
            1,
            (
                Field("T_EN", 1),
                Field("TSEG_SZ", 2),
                Field("SM_L2", 1, RO, 1),
                Field("SM_L1", 1, RO, 1),
                Field("SM_CACHE", 1, RO, 1),
                Field("E_SMERR", 1, RO),
                Field("H_SMRAME", 1),
            ),
        ),
    ),
)

# The shadow segments in the order of the PAM nibbles, from PAM0's high one.
SEGMENTS: tuple[tuple[int, int], ...] = (
    (0xF_0000, 0x1_0000),
    *((base, 0x4000) for base in range(0xC_0000, 0xF_0000, 0x4000)),
)


class Mch:
    """The function and the memory map that its registers decide."""

    WIRING = ("_ecam", "_ecam_region", "_log", "_memory", "_shadow", "_smram")
    STATISTICS = ()
    SAVED = ("regs",)
    __slots__ = WIRING + STATISTICS + SAVED

    config_size = CONFIG_SIZE

    def __init__(self, memory: AddressSpace, ecam: Ecam, log: GuestLog) -> None:
        self._memory = memory
        self._ecam = ecam
        self._log = log
        self._ecam_region: Region | None = None
        self._shadow: dict[int, Region] = {}
        self._smram: Region | None = None
        self.regs = RegFile(MAP)
        self.regs.on_write["PCIEXBAR"] = lambda old, written: self._map_ecam()
        for i in range(7):
            self.regs.on_write[f"PAM{i}"] = lambda old, written: self._map_shadow()
        self.regs.on_write["EXT_TSEG_MBYTES"] = self._ext_tseg_written
        self.regs.on_write["SMRAM"] = self._smram_written

    def reset(self) -> None:
        self.regs.reset()
        self.apply()

    def apply(self) -> None:
        """Bring the memory map to what the registers say (after reset or a restored state)."""
        with self._memory.transaction():
            self._map_ecam()
            self._map_shadow()
            self._map_smram()

    def config_read(self, offset: int, size: int) -> int:
        return self.regs.read(offset, size)

    def config_write(self, offset: int, size: int, value: int) -> None:
        locked = self.regs.get("SMRAM") & SMRAM_D_LCK
        esmramc = self.regs.get("ESMRAMC")
        self.regs.write(offset, size, value)
        if locked:
            self.regs.set("ESMRAMC", esmramc)

    def _map_ecam(self) -> None:
        value = self.regs.get("PCIEXBAR")
        length = value >> 1 & 3
        base = value & 0xF_FC00_0000
        wanted: tuple[int, int] | None = None
        if value & 1:
            if length == 3:
                self._log.guest_error("MCH", "PCIEXBAR length 3 is reserved")
            else:
                wanted = base & ~(ECAM_SIZES[length] - 1), ECAM_SIZES[length]
        region = self._ecam_region
        if region is not None and wanted == (region.base, region.size):
            return
        with self._memory.transaction():
            if region is not None:
                self._memory.unmap(region)
            self._ecam_region = None
            if wanted is not None:
                # Below RAM's priority: a guest that puts the window over its RAM keeps the RAM.
                self._ecam_region = self._memory.map_mmio(*wanted, self._ecam, "pcie-mmcfg", priority=-1)

    def _map_shadow(self) -> None:
        with self._memory.transaction():
            for i, (base, size) in enumerate(SEGMENTS):
                nibble = self.regs.data[PAM_FIRST + (i + 1) // 2] >> (4 if not i & 1 else 0) & 3
                self._shadow_segment(base, size, nibble)

    def _shadow_segment(self, base: int, size: int, attributes: int) -> None:
        """Read and write to RAM, or read only; without read enable the PCI bus answers, where nothing is."""
        region = self._shadow.get(base)
        writable = bool(attributes & PAM_WRITE)
        if attributes & PAM_READ and base + size <= len(self._memory.ram):
            if region is not None and (region.kind == 0) == writable:
                return
            map_segment = self._memory.map_ram if writable else self._memory.map_rom
            self._shadow[base] = map_segment(base, size, base, "pc.ram")
        elif self._shadow.pop(base, None) is None:
            return
        if region is not None:
            self._memory.unmap(region)

    def _ext_tseg_written(self, old: int, written: int) -> None:
        if self.regs.get("EXT_TSEG_MBYTES") == EXT_TSEG_QUERY:
            self.regs.set("EXT_TSEG_MBYTES", EXT_TSEG_MIB)

    def _smram_written(self, old: int, written: int) -> None:
        if old & SMRAM_D_LCK:
            # Locked: D_OPEN and G_SMRAME are read-only, and the lock itself lasts until reset.
            self.regs.set("SMRAM", (self.regs.get("SMRAM") & ~0x58) | (old & 0x18))
        elif self.regs.get("SMRAM") & SMRAM_D_LCK:
            self.regs.set("SMRAM", self.regs.get("SMRAM") & ~SMRAM_D_OPEN)
        self._map_smram()

    def _map_smram(self) -> None:
        is_open = bool(self.regs.get("SMRAM") & SMRAM_D_OPEN) and len(self._memory.ram) >= SMRAM_BASE + SMRAM_SIZE
        if is_open and self._smram is None:
            self._smram = self._memory.map_ram(SMRAM_BASE, SMRAM_SIZE, SMRAM_BASE, "smram")
        elif not is_open and self._smram is not None:
            self._memory.unmap(self._smram)
            self._smram = None
