"""Ports that take a write and do nothing, as on the machine whose place we take.

0x80 is the POST code port, which Linux writes to pass a microsecond between two accesses of a slow chip; 0xF0 clears
the coprocessor's busy latch of a PC/AT, which no processor with native floating point errors needs.
"""

from __future__ import annotations

POST_CODE = 0x80
COPROCESSOR_ERROR = 0xF0


class DelayPort:
    """One such port; it reads as all ones."""

    WIRING = ()
    STATISTICS = ()
    SAVED = ()
    __slots__ = ()

    def pio_read(self, offset: int, size: int) -> int:
        return (1 << 8 * size) - 1

    def pio_write(self, offset: int, size: int, value: int) -> None:
        pass
