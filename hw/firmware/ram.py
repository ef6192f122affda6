"""Guest RAM as the boot code sees it: bytes at a guest physical address.

A board has its RAM in one buffer and shows it in two pieces, below and above the PCI hole that ends at 4 GiB.
"""

from typing import Protocol

from hw.firmware.errors import BootError

FOUR_GIB = 1 << 32


class GuestRam(Protocol):
    """Guest physical memory that is RAM. An access outside RAM raises `BootError`: the caller's layout does not fit."""

    @property
    def size(self) -> int:
        """All RAM, in bytes."""
        ...

    def write(self, gpa: int, data: bytes | bytearray | memoryview) -> None: ...

    def read(self, gpa: int, size: int) -> bytes: ...


class SplitRam:
    """`GuestRam` over one buffer: its first `low_size` bytes at gpa 0, the rest at 4 GiB."""

    __slots__ = ("_bytes", "_low_size")

    def __init__(self, buffer: bytearray | memoryview, low_size: int) -> None:
        self._bytes = memoryview(buffer).cast("B")
        self._low_size = min(low_size, len(self._bytes))

    @property
    def size(self) -> int:
        return len(self._bytes)

    def write(self, gpa: int, data: bytes | bytearray | memoryview) -> None:
        offset = self._offset(gpa, len(data))
        self._bytes[offset : offset + len(data)] = data

    def read(self, gpa: int, size: int) -> bytes:
        offset = self._offset(gpa, size)
        return bytes(self._bytes[offset : offset + size])

    def _offset(self, gpa: int, size: int) -> int:
        """Where `size` bytes at `gpa` start in the buffer."""
        if gpa >= 0 and gpa + size <= self._low_size:
            return gpa
        offset = gpa - FOUR_GIB + self._low_size
        if gpa >= FOUR_GIB and offset + size <= len(self._bytes):
            return offset
        raise BootError(f"{size:#x} bytes at guest address {gpa:#x} are not in RAM: give the guest more memory with -m")
