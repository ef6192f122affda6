"""Raw memory that native code uses: anonymous mappings with a host virtual address, zeroed, taken lazily."""

import ctypes
import mmap

_MAP_NORESERVE = 0x4000  # Linux: pages are paid for when they are touched


class Mapping:
    """`size` bytes of zeroed host memory at `hva`, page-aligned; `view` is Python's access. Freed with the object."""

    __slots__ = ("_map", "hva", "size", "view")

    def __init__(self, size: int) -> None:
        """MemoryError when the host does not give that much."""
        self.size = (size + mmap.PAGESIZE - 1) & -mmap.PAGESIZE
        try:
            self._map = mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
        except OSError as error:
            raise MemoryError(f"{size >> 20} MiB of host memory: {error.strerror}") from error
        self.view = memoryview(self._map)
        self.hva = ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def advise_huge_pages(self) -> None:
        """Ask for huge host pages: guest RAM is walked at random by the softmmu."""
        madvise = getattr(self._map, "madvise", None)
        advice = getattr(mmap, "MADV_HUGEPAGE", None)
        if madvise is not None and advice is not None:
            try:
                madvise(advice)
            except OSError:
                return
