"""Growing arrays of fixed-size records that native code reads in place.

Growth moves an array: its new address is published, and the old memory is kept as long as the array lives, since native
code may hold a pointer into it until it has returned from its callback.
"""

import ctypes
from collections.abc import Callable


class NativeArray:
    """Records of `size` bytes. `data` is all of the memory, `count` records of it are in use."""

    def __init__(self, size: int, capacity: int) -> None:
        self.size = size
        self.count = 0
        self._older: list[bytearray] = []
        self._publish: Callable[[int], None] | None = None
        self._take(bytearray(size * capacity))

    def _take(self, memory: bytearray) -> None:
        self.data = memory
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self.words = memoryview(memory).cast("i") if len(memory) % 4 == 0 else memoryview(b"").cast("i")
        if self._publish is not None:
            self._publish(self.address)

    def attach(self, publish: Callable[[int], None]) -> None:
        """Call `publish` with the address, now and whenever it changes."""
        self._publish = publish
        publish(self.address)

    def extend(self, count: int) -> int:
        """Room for `count` more zeroed records; the index of the first."""
        first = self.count
        need = (first + count) * self.size
        if need > len(self.data):
            grown = bytearray((max(2 * len(self.data), need) + 3) & -4)
            grown[: first * self.size] = memoryview(self.data)[: first * self.size]
            self._older.append(self.data)
            self._take(grown)
        self.count = first + count
        return first

    def used(self) -> memoryview:
        return memoryview(self.data)[: self.count * self.size]

    def replace(self, content: memoryview) -> None:
        """Take other records instead of its own."""
        self.count = 0
        self.extend(len(content) // self.size)
        self.data[: len(content)] = content
