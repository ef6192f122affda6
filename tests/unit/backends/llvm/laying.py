"""A block assembler in plain Python for these tests: lays stencils into executable memory, resolves and runs them."""

import ctypes
import mmap
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import llvmlite.binding as llvm

from backends.llvm.gates import GATE_SYMBOLS, runtime_modules
from backends.llvm.host import target_machine
from tcg.exec.forms import HoleSlot, Reloc, RelocKind, Stencil, SymbolKind
from tcg.runtime.layout import ENV, JC_ENTRIES, JC_ENTRY, TLB_ENTRY
from tcg.runtime.struct import View

_FORMATS = {RelocKind.ABS64: 8, RelocKind.ABS32: 4, RelocKind.REL32: 4, RelocKind.ABS8: 1, RelocKind.ABS16: 2}


@cache
def gates() -> dict[str, int]:
    """Addresses of the gates, linked once a test process."""
    target_machine()
    module = llvm.parse_assembly("".join(runtime_modules()))
    engine = llvm.create_mcjit_compiler(module, target_machine())
    engine.finalize_object()
    _KEEP.append(engine)
    return {name: engine.get_function_address(name) for name in GATE_SYMBOLS}


_KEEP: list[Any] = []


class Machine:
    """env, guest RAM behind a one-page-an-entry TLB, and a code buffer. Slow-path helpers work on the same RAM."""

    def __init__(self, ram_size: int = 4096, ram_base: int = 0x10000, env_size: int = 4096) -> None:
        self.code = mmap.mmap(-1, 1 << 16, prot=7, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.code))
        self.top = 0
        self.align_cold = False  # as hosts without AVX need it
        self.env = (ctypes.c_ubyte * (env_size + 64))()
        self.env_at = (ctypes.addressof(self.env) + 63) & -64
        self.ram = (ctypes.c_ubyte * (ram_size + 4096))()
        self.ram_base = ram_base
        self.ram_at = ctypes.addressof(self.ram)
        self.ram_size = ram_size
        self.tlb = (ctypes.c_uint64 * (64 * 4))(*([2**64 - 1] * 256))
        self.jc = (ctypes.c_uint64 * (2 * JC_ENTRIES))(*([2**64 - 1] * (2 * JC_ENTRIES)))
        self.jc[0] = 1  # not all ones, which leads to this slot
        self.view = View(ENV, self.env_at)
        self.helpers: dict[str, int] = {}
        self.calls: list[str] = []
        for name, value in (
            ("tlb_mask", 63 * TLB_ENTRY.size),
            ("tlb_table", ctypes.addressof(self.tlb)),
            ("jc_table", ctypes.addressof(self.jc)),
            ("host_mxcsr", 0x1F80),
            ("host_fcw", 0x37F),
        ):
            self.view.set(name, value)
        self._stub: dict[str, int] = {}

    def map_page(self, gva: int, *, read: bool = True, write: bool = True) -> None:
        """Let accesses to gva's page (of RAM) take the fast path."""
        page = gva & ~0xFFF
        entry = (page >> 12 & 63) * 4
        addend = (self.ram_at - self.ram_base) % 2**64
        self.tlb[entry : entry + 4] = [page if read else 2**64 - 1, page if write else 2**64 - 1, 2**64 - 1, addend]

    def jump_cache(self, pc: int, code: int) -> None:
        index = ((pc >> 12) ^ pc) & (JC_ENTRIES - 1)
        assert JC_ENTRY.size == 16
        self.jc[2 * index : 2 * index + 2] = [pc, code]

    def helper(self, symbol: str, function: Callable[..., int | None], result: Any, *args: Any) -> None:
        """Define C function `symbol`(env, *args)."""
        callback = ctypes.CFUNCTYPE(result, ctypes.c_void_p, *args)(function)
        _KEEP.append(callback)
        self.helpers[symbol] = ctypes.cast(callback, ctypes.c_void_p).value or 0

    def emit(self, code: bytes) -> int:
        at = self.base + self.top
        self.code[self.top : self.top + len(code)] = code
        self.top += len(code)
        return at

    def far(self, target: int) -> int:
        """A jump to anywhere, in reach of 32-bit displacements."""
        return self.emit(b"\xff\x25\x00\x00\x00\x00" + struct.pack("<Q", target))

    def lay(self, stencils: Sequence[tuple[Stencil, Mapping[str, int]]], exits: Sequence[int] = ()) -> int:
        """One block of (stencil, hole values); exits: where slots 0 and 1 go (default: leave, as the end does)."""
        leave = self._far("leave", gates()["leave"])
        for stencil, _ in stencils:
            for reloc in stencil.relocs:
                if reloc.symbol is SymbolKind.HELPER:
                    self._far(reloc.name, self.helpers[reloc.name])
        self.top = (self.top + 15) & -16
        start = self.base + self.top
        total = sum(s.hot_size for s, _ in stencils)
        cold = start + total + 5
        at = start
        code = bytearray(total + 5 + sum(len(s.code) - s.hot_size + 15 for s, _ in stencils))
        for stencil, holes in stencils:
            if self.align_cold:
                cold = (cold + 15) & -16
            hot_at, cold_at, next_at = at, cold, at + stencil.hot_size
            code[hot_at - start : next_at - start] = stencil.code[: stencil.hot_size]
            cold += len(stencil.code) - stencil.hot_size
            code[cold_at - start : cold - start] = stencil.code[stencil.hot_size :]
            for reloc in stencil.relocs:
                cold_part = reloc.offset >= stencil.hot_size
                place = cold_at + reloc.offset - stencil.hot_size if cold_part else hot_at + reloc.offset
                targets = {
                    SymbolKind.NEXT: next_at,
                    SymbolKind.EXIT: exits[reloc.index] if exits and reloc.symbol is SymbolKind.EXIT else leave,
                    SymbolKind.LEAVE: leave,
                    SymbolKind.COLD: cold_at,
                    SymbolKind.HOT: hot_at,
                }
                self._patch(code, place - start, place, reloc, targets, holes)
            at = next_at
        code[total : total + 5] = b"\xe9" + struct.pack("<i", leave - (start + total + 5))
        assert self.emit(bytes(code)) == start
        return start

    def _far(self, name: str, target: int) -> int:
        if name not in self._stub:
            self._stub[name] = self.far(target)
        return self._stub[name]

    def _patch(
        self,
        code: bytearray,
        offset: int,
        place: int,
        reloc: Reloc,
        targets: Mapping[SymbolKind, int],
        holes: Mapping[str, int],
    ) -> None:
        if reloc.symbol is SymbolKind.HOLE:
            value = holes[HoleSlot(reloc.index).name.lower()]
        elif reloc.symbol is SymbolKind.HELPER:
            value = self._stub[reloc.name]
        else:
            value = targets[reloc.symbol]
        value += reloc.addend
        if reloc.kind is RelocKind.REL32:
            value -= place
            assert -(1 << 31) <= value < 1 << 31
        size = _FORMATS[reloc.kind]
        code[offset : offset + size] = (value % (1 << 8 * size)).to_bytes(size, "little")

    def run(self, code: int) -> None:
        ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(gates()["enter"])(self.env_at, code)

    # --- env and RAM bytes
    def write_env(self, offset: int, data: bytes) -> None:
        ctypes.memmove(self.env_at + offset, data, len(data))

    def read_env(self, offset: int, size: int) -> bytes:
        return ctypes.string_at(self.env_at + offset, size)

    def write_ram(self, data: bytes) -> None:
        ctypes.memmove(self.ram_at, data, len(data))

    def read_ram(self) -> bytes:
        return ctypes.string_at(self.ram_at, self.ram_size)
