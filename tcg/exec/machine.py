"""What all vCPUs share natively: the MACHINE struct, guest RAM's view, the code buffer, blocks, translation tables."""

import ctypes
from collections.abc import Iterable

from tcg.exec.code_buffer import CodeBuffer
from tcg.exec.memory_map import Mapping
from tcg.exec.tables import Tables
from tcg.runtime.layout import BLOCK, MACHINE, PAGE, PAGE_BITS, RAM_RANGE
from tcg.runtime.object import Runtime
from tcg.runtime.struct import View

RamRange = tuple[int, int, int, bool]  # gpa, size, hva, readonly
BYTES_A_BLOCK = 256  # block records are sized for code blocks of this many bytes on average


class NativeMachine:
    """See the module. `tb_size`: bytes of translated code."""

    def __init__(self, runtime: Runtime, tb_size: int) -> None:
        self.runtime = runtime
        self._memory = Mapping(MACHINE.size)
        self.view = View(MACHINE, self._memory.hva)
        self.code = CodeBuffer(tb_size, runtime.address("leave"))
        self._blocks = Mapping(max(tb_size // BYTES_A_BLOCK, 1024) * BLOCK.size)
        self._pages: Mapping | None = None
        self._ranges: list[ctypes.Array[ctypes.c_char]] = []
        view = self.view
        self.code.attach(view)
        view.set("block_start", self._blocks.hva)
        view.set("block_top", self._blocks.hva)
        view.set("block_end", self._blocks.hva + self._blocks.size)
        view.set("leave", runtime.address("leave"))
        runtime.call("qht_init", view.address)
        self.tables = Tables(view, runtime.address)

    def add_cpu(self, cpu: int) -> None:
        """Enter a CPU struct's hva."""
        count = self.view.get("cpu_count")
        self.view.set("cpus", cpu, count)
        self.view.set("cpu_count", count + 1)

    def set_ram(self, ranges: Iterable[RamRange]) -> None:
        """The physical memory that is RAM or ROM, sorted by gpa. The caller flushes TLBs; older views stay readable."""
        ordered = sorted(ranges)
        packed = bytearray()
        for gpa, size, hva, readonly in ordered:
            for value in (gpa, size, hva, int(readonly)):
                packed += value.to_bytes(8, "little")
        assert len(packed) == len(ordered) * RAM_RANGE.size
        array = (ctypes.c_char * max(len(packed), 1)).from_buffer_copy(bytes(packed) or b"\0")
        self._ranges.append(array)
        end = max((gpa + size for gpa, size, _, _ in ordered), default=0)
        count = end >> PAGE_BITS
        if self._pages is None or count > self.view.get("page_count"):
            assert self._pages is None or not self.view.get("block_top") - self._blocks.hva, "RAM grew under blocks"
            self._pages = Mapping(max(count, 1) * PAGE.size)
            self.view.set("pages", self._pages.hva)
            self.view.set("page_count", count)
        self.view.set("range_count", 0)
        self.view.set("ranges", ctypes.addressof(array))
        self.view.set("range_count", len(ordered))

    def flush(self) -> None:
        """Forget all translated code; no vCPU may be in JIT code."""
        self.runtime.call("flush_code", self.view.address)

    def ram_written(self, gpa: int, size: int) -> None:
        """A device wrote guest RAM."""
        self.runtime.call("ram_written", self.view.address, gpa, size)
