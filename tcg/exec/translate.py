"""From guest bytes to stencils: the Python half of translation. Read me first.

The native assembler (tcg.runtime.assemble) walks guest bytes through the pattern trie and lays stencils. It calls here
only for what it has never seen:

    miss(code, pc, mode)        an encoding without a pattern: capstone decodes it, and ahead to the end of the block
    stencil(form, variant)      a (form, variant) without host bytes: frontend -> IR -> optimizer -> LLVM -> stencil

Everything here runs under tb_lock. Both results stay in the tables, and with `cache` on disk for ever after.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from tcg.exec.forms import Form, Frontend, Pattern, Stencil, Truncated, Variant
from tcg.exec.tables import TablesError
from tcg.ir.block import Block
from tcg.ir.builder import Builder

STAGES = ("decode", "seeds", "ir", "optimize", "llvm")
LOOK_AHEAD = 32  # instructions decoded beyond a miss in one visit


class Tables(Protocol):
    """What the translator needs of tcg.exec.tables."""

    def add_form(self, form: Form) -> int: ...
    def add_pattern(self, mode: int, pattern: Pattern) -> int: ...
    def find_pattern(self, mode: int, code: bytes) -> int: ...
    def form(self, form_id: int) -> Form: ...
    def set_stencil(self, form_id: int, variant: Variant, stencil: Stencil) -> None: ...


class Premade(Protocol):
    """Stencils that somebody else makes (tcg.exec.seeds)."""

    def take(self, wanted: Sequence[tuple[int, Variant]]) -> list[tuple[int, Variant]]: ...
    def close(self) -> None: ...


class Compiler(Protocol):
    def compile(self, blocks: Sequence[tuple[str, Block]]) -> list[Stencil]: ...


@dataclass(slots=True)
class Times:
    """Seconds spent in each Python stage, and how often; `tessera run --stats` shows them."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))

    def add(self, stage: str, start: float, count: int = 1) -> float:
        now = time.perf_counter()
        self.seconds[stage] += now - start
        self.counts[stage] += count
        return now


class Translator:
    """Fills the tables on demand. on_ir, on_op_opt: log hooks that see a block before and after optimization."""

    def __init__(
        self, frontend: Frontend, tables: Tables, compiler: Callable[[], Compiler], optimize: Callable[[Block], Block]
    ) -> None:
        self.frontend = frontend
        self.tables = tables
        self.times = Times()
        self.changed = False
        self.premade: Premade | None = None
        self.on_ir: Callable[[str, Block], None] | None = None
        self.on_op_opt: Callable[[str, Block], None] | None = None
        self._make_compiler = compiler
        self._compiler: Compiler | None = None
        self._optimize = optimize

    def miss(self, code: bytes, pc: int, mode: int) -> bool:
        """Add the pattern of the instruction at the start of `code` and, decoding ahead, of those after it.

        False: the encoding goes on past `code`; the caller supplies the bytes of the next page too.
        """
        at = 0
        for _ in range(LOOK_AHEAD):
            start = time.perf_counter()
            try:
                pattern = self.frontend.decode(code[at:], pc + at, mode)
            except Truncated:
                return at > 0
            self.times.add("decode", start)
            self.tables.add_form(pattern.form)
            self._add_pattern(mode, pattern, code[at:])
            self.changed = True
            at += pattern.length
            if pattern.form.ends_block or at >= len(code) or self.tables.find_pattern(mode, code[at:]) >= 0:
                break
        return True

    def _add_pattern(self, mode: int, pattern: Pattern, code: bytes) -> None:
        """Heads that would not be prefix-free are the frontend's mistake, but a guest chooses the bytes that show it:
        such an encoding is known by all of its bytes instead."""
        try:
            self.tables.add_pattern(mode, pattern)
        except TablesError:
            self.tables.add_pattern(mode, replace(pattern, head=bytes(code[: pattern.length])))

    def ir(self, form: Form, variant: Variant) -> Block:
        """The optimized IR of one (form, variant)."""
        start = time.perf_counter()
        builder = Builder()
        self.frontend.emit(form, variant, builder)
        start = self.times.add("ir", start)
        if self.on_ir is not None:
            self.on_ir(form.name, builder.block)
        block = self._optimize(builder.block)
        self.times.add("optimize", start)
        if self.on_op_opt is not None:
            self.on_op_opt(form.name, block)
        return block

    def stencils(self, wanted: Sequence[tuple[int, Variant]]) -> None:
        """Compile the stencils of several (form id, variant) in one LLVM module and put them into the tables."""
        if self.premade is not None:
            start = time.perf_counter()
            before = len(wanted)
            wanted = self.premade.take(wanted)
            self.times.add("seeds", start, before - len(wanted))
            self.changed = True
            if not wanted:
                return
        blocks = []
        for form_id, variant in wanted:
            form = self.tables.form(form_id)
            blocks.append(
                (f"{form.name} {variant.status_in}{'l' if variant.status_live else 'd'}", self.ir(form, variant))
            )
        start = time.perf_counter()
        if self._compiler is None:
            self._compiler = self._make_compiler()
        for (form_id, variant), stencil in zip(wanted, self._compiler.compile(blocks), strict=True):
            self.tables.set_stencil(form_id, variant, stencil)
        self.changed = True
        self.times.add("llvm", start, len(wanted))

    def stencil(self, form_id: int, variant: Variant) -> None:
        self.stencils([(form_id, variant)])
