"""Conventional memory in which the boot protocols leave their small structures (page tables, info blocks, strings)."""

from collections.abc import Iterable

from hw.firmware.e820 import EBDA_BASE
from hw.firmware.errors import BootError
from hw.firmware.ram import GuestRam

BASE = 0x10000
END = EBDA_BASE


class BootArea:
    """Hands out the memory from `BASE` upwards; everything in it is reclaimable once the kernel has read it."""

    __slots__ = ("_next", "_ram")

    def __init__(self, ram: GuestRam) -> None:
        self._ram = ram
        self._next = BASE

    def reserve(self, size: int, align: int = 16) -> int:
        gpa = -(-self._next // align) * align
        if gpa + size > END:
            raise BootError(
                f"{size} bytes of boot data do not fit in conventional memory: shorten the command line (-append)"
            )
        self._next = gpa + size
        return gpa

    def place(self, data: bytes, align: int = 16) -> int:
        gpa = self.reserve(len(data), align)
        self._ram.write(gpa, data)
        return gpa

    def place_string(self, text: bytes) -> int:
        return self.place(text + b"\0", align=1)

    @staticmethod
    def check_clear(what: str, ranges: Iterable[tuple[int, int]]) -> None:
        """Refuse an image with a (gpa, size) range in this area."""
        for gpa, size in ranges:
            if gpa < END and gpa + size > BASE:
                raise BootError(
                    f"{what}: it wants to be loaded at {gpa:#x}, where the boot data goes; link it to 1 MiB or higher"
                )
