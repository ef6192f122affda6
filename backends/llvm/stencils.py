"""Stencils by LLVM: a batch of IR blocks becomes one module, one object, one `Stencil` a block.

Relocation convention: ABSn fields hold value + addend; REL32 fields hold value + addend - address of the field (the
addend of a jump is thus -4). COLD and HOT values are the addresses where those parts begin.

The passes are chosen for straight code of few basic blocks. A stencil of one x86 instruction, in a batch of 48: text
0.03 ms, parse 0.06, passes 0.15 (LLVM's own O2 0.54 and O1 0.41, both with 2% longer code), code generation 0.87,
reading back 0.16. Value numbering and dead stores find nothing in one instruction that `tcg.opt` has left; in whole
blocks they do.

A batch shares LLVM's set-up, so callers should collect some dozens of blocks. Between batches a compiler keeps nothing
but what it has made, by the block's content; use one a thread.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import capstone
import llvmlite.binding as llvm

from backends.llvm import lower  # noqa: F401  (registers the lowerings)
from backends.llvm.emitter import HOLE_PREFIX, SYMBOL_PREFIX, ModuleText, Unsupported, emit_block
from backends.llvm.host import Host, host, target_machine
from backends.llvm.object_file import ObjectFile, Relocation, Symbol
from backends.llvm.split import POOL, Boundary, Fixup, basic_blocks, split
from tcg.exec.forms import HoleSlot, Reloc, RelocKind, Stencil, SymbolKind
from tcg.ir.block import Block
from tcg.ir.text import show

_ELF_KINDS = {
    1: RelocKind.ABS64,  # R_X86_64_64
    2: RelocKind.REL32,  # R_X86_64_PC32
    4: RelocKind.REL32,  # R_X86_64_PLT32
    10: RelocKind.ABS32,  # R_X86_64_32
    11: RelocKind.ABS32,  # R_X86_64_32S
    12: RelocKind.ABS16,  # R_X86_64_16
    14: RelocKind.ABS8,  # R_X86_64_8
}
_SIGNED32 = 11
_FIXED = {
    "next": (SymbolKind.NEXT, 0),
    "exit0": (SymbolKind.EXIT, 0),
    "exit1": (SymbolKind.EXIT, 1),
    "leave": (SymbolKind.LEAVE, 0),
}
_SLOTS = {slot.name.lower(): int(slot) for slot in HoleSlot}
_SMALL_OFFSET = 1 << 17  # a register offset plus a constant; no immediate is bounded so tightly


class _NeedsOpaqueHoles(Exception):
    """LLVM computed with a hole in a way that no relocation can say."""


class _NeedsRealignedStack(Exception):
    """LLVM ran out of registers: the stencil moves rsp, and then calls a helper."""


class StencilCompiler:
    """compile() turns named IR blocks into stencils.

    parallel: more than one vCPU may run (real atomics and fences). whole_blocks: they are of many guest instructions.
    """

    def __init__(self, *, parallel: bool = False, whole_blocks: bool = False, target: Host | None = None) -> None:
        self.parallel = parallel
        self.whole_blocks = whole_blocks
        self.target = target or host()
        self._machine = target_machine(target=self.target)
        self._disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self._made: dict[bytes, Stencil] = {}

    def compile(self, blocks: Sequence[tuple[str, Block]]) -> list[Stencil]:
        """One stencil a block, in order. Names are for diagnostics; they need not be unique.

        Forms and variants often differ in name only (a fifth of those of a boot do): equal blocks share a compilation.
        """
        keys = [_fingerprint(block) for _, block in blocks]
        todo = [(key, block) for key, (_, block) in zip(keys, blocks, strict=True) if key not in self._made]
        unique = list(dict(todo).items())
        stencils: dict[int, Stencil] = {}
        for opaque, realign in ((False, False), (True, False), (False, True), (True, True)):
            again = [(i, block) for i, (_, block) in enumerate(unique) if i not in stencils]
            if again:
                stencils |= self._compile(again, opaque=opaque, realign=realign)
        self._made.update((key, stencils[i]) for i, (key, _) in enumerate(unique))
        return [self._made[key] for key in keys]

    def llvm_text(self, block: Block) -> str:
        """The LLVM module of one block before optimisation, for `tessera explain`."""
        module = ModuleText(self.target, parallel=self.parallel)
        emit_block(module, "0", block)
        return module.text()

    def _compile(
        self, blocks: Iterable[tuple[int, Block]], *, opaque: bool, realign: bool = False
    ) -> dict[int, Stencil]:
        module = ModuleText(self.target, parallel=self.parallel)
        exits = {i: emit_block(module, str(i), block, opaque=opaque, realign=realign).exits for i, block in blocks}
        reader = _ObjectReader(
            ObjectFile(self.object_code(module.text())), self._disassembler, module, realigned=realign
        )
        stencils: dict[int, Stencil] = {}
        for i, slots in exits.items():
            try:
                code, hot_size, relocs = reader.read(f"{SYMBOL_PREFIX}{i}")
            except _NeedsOpaqueHoles:
                assert not opaque, "an opaque hole was computed with"
                continue
            except _NeedsRealignedStack:
                if not realign:
                    continue
                raise
            stencils[i] = Stencil(code, hot_size, relocs, tuple(sorted(slots)))
        return stencils

    def object_code(self, text: str) -> bytes:
        """LLVM text, optimised, as an object file."""
        module = llvm.parse_assembly(text)
        builder = llvm.create_pass_builder(self._machine, llvm.create_pipeline_tuning_options(speed_level=2))
        passes = llvm.create_new_module_pass_manager()  # one a function costs 0.1 ms more
        if self.whole_blocks:
            passes.add_instruction_combine_pass()
            passes.add_simplify_cfg_pass()
            passes.add_jump_threading_pass()
            passes.add_new_gvn_pass()
            passes.add_sinking_pass()
            passes.add_dead_store_elimination_pass()
        else:
            passes.add_jump_threading_pass()
            passes.add_instruction_combine_pass()
        passes.add_simplify_cfg_pass()
        passes.run(module, builder)
        return bytes(self._machine.emit_object(module))


def _fingerprint(block: Block) -> bytes:
    return hashlib.blake2b(show(block).encode(), digest_size=16).digest()


class _ObjectReader:
    """Finds the functions of one object file, and what their relocations mean to us."""

    def __init__(self, file: ObjectFile, disassembler: Any, module: ModuleText, *, realigned: bool = False) -> None:
        self._file = file
        self._realigned = realigned
        self._avx = module.host.avx
        self._short = module.short_holes()
        self._disassembler = disassembler

    def read(self, symbol: str) -> tuple[bytes, int, tuple[Reloc, ...]]:
        number = self._file.section_number[f".text.{symbol}"]
        code = bytearray(self._file.sections[number].data)
        constants = _Constants(self._file)
        fixups = [self._fixup(r, constants) for r in self._file.relocations.get(number, ())]
        boundaries = list(self._disassembler.disasm_lite(bytes(code), 0))
        if not self._realigned and any(f.symbol is SymbolKind.HELPER for f in fixups) and _moves_stack(boundaries):
            raise _NeedsRealignedStack
        if constants.data:
            self._unalign(code, boundaries, fixups)
        return split(basic_blocks(bytes(code), boundaries, fixups), bytes(constants.data))

    def _fixup(self, relocation: Relocation, constants: "_Constants") -> Fixup:
        at, symbol, addend = relocation.offset, relocation.symbol, relocation.addend
        kind, name = _ELF_KINDS[relocation.kind], symbol.name
        if name.startswith(HOLE_PREFIX) and not symbol.section:
            hole = name.removeprefix(HOLE_PREFIX).split(".")[0]
            if kind is RelocKind.REL32 or (relocation.kind == _SIGNED32 and addend and not self._is_offset(hole)):
                raise _NeedsOpaqueHoles
            return Fixup(at, kind, SymbolKind.HOLE, _SLOTS[hole], "", addend, name in self._short)
        if name in _FIXED:
            fixed, index = _FIXED[name]
            return Fixup(at, kind, fixed, index, "", addend)
        if name.startswith("helper_"):
            return Fixup(at, kind, SymbolKind.HELPER, 0, name, addend)
        if symbol.section:
            if kind not in (RelocKind.REL32, RelocKind.ABS64):
                raise Unsupported("LLVM reads a constant at an absolute address, which 32 bits do not hold")
            offset, addend = constants.place(symbol, addend)
            return Fixup(at, kind, SymbolKind.COLD, 0, POOL, offset + addend)
        raise Unsupported(f"LLVM calls {name}, which no run-time has")

    @staticmethod
    def _is_offset(hole: str) -> bool:
        return hole[0] == "r" and hole[1:].isdigit()

    def _unalign(self, code: bytearray, boundaries: list[Boundary], fixups: list[Fixup]) -> None:
        """Constants may lie at any address: aligned VEX loads become unaligned ones.

        Without AVX every memory operand is an aligned one: such hosts need cold parts laid at multiples of 16.
        """
        if not self._avx:
            return
        pool = [f.offset for f in fixups if f.symbol is SymbolKind.COLD]
        for offset, size, mnemonic, _ in boundaries:
            if not any(offset <= at < offset + size for at in pool):
                continue
            opcode = offset + (2 if code[offset] == 0xC5 else 3)  # after the two- or three-byte VEX prefix
            if mnemonic in ("vmovaps", "vmovapd"):
                assert code[offset] in (0xC4, 0xC5) and code[opcode] == 0x28
                code[opcode] = 0x10
            elif mnemonic == "vmovdqa":
                assert code[offset] in (0xC4, 0xC5) and code[opcode - 1] & 3 == 1
                code[opcode - 1] += 1  # prefix 66 to F3: vmovdqu


def _moves_stack(boundaries: list[Boundary]) -> bool:
    return any(name == "push" or (name == "sub" and text.startswith("rsp")) for _, _, name, text in boundaries)


class _Constants:
    """The constants that one function reads, gathered in its own pool."""

    def __init__(self, file: ObjectFile) -> None:
        self._file = file
        self.data = bytearray()
        self._places: dict[tuple[int, int], int] = {}

    def place(self, symbol: Symbol, addend: int) -> tuple[int, int]:
        """(offset in the pool, addend left over) of the constant that symbol + addend leads to."""
        number = symbol.section
        section = self._file.sections[number]
        if not section.name.startswith(".rodata"):
            raise Unsupported(f"a stencil refers to {section.name}")
        size = section.entry_size or 32
        start = symbol.value
        if symbol.names_section:
            inside = (addend + 4) // size * size
            start, addend = start + inside, addend - inside
        key = (number, start)
        if key not in self._places:
            self.data += bytes(-len(self.data) % min(size, 16))
            self._places[key] = len(self.data)
            self.data += section.data[start : start + size]
        return self._places[key], addend
