"""Form, pattern, stencil: the three records between a guest encoding and host bytes, and the frontend's contract.

form      all that changes the IR of an instruction: mnemonic, operand kinds and sizes, addressing shape, mode bits.
hole      what a form leaves open: register offsets into env, immediates, displacements, pcs.
pattern   how the native assembler recognises one encoding of a form and where each hole's value comes from.
stencil   host bytes of one (form, variant) with relocations against holes, exits and helpers.

A form that reads or writes the guest's lazy status flags has variants: what sort of flags come in (`status_in`, 0 =
unknown until run time) and whether anybody reads what goes out (`status_live`).
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from tcg.ir.builder import Builder
from tcg.runtime.struct import Struct


class HoleSlot(IntEnum):
    """The native assembler's fixed places for hole values; a Hole's name is the lower-case member name."""

    PC = 0  # gva of this instruction
    NEXT_PC = 1  # gva of the next one
    TARGET = 2  # next_pc + pc-relative immediate, wrapped to the mode's width
    IMM = 3  # immediate, sign-extended to 64 bits from its encoded size
    DISP = 4  # displacement, sign-extended; next_pc + displacement when pc-relative
    IMM2 = 5  # second immediate
    R0 = 6  # register offsets into env, in the order the frontend asks for them
    R1 = 7
    R2 = 8
    R3 = 9
    R4 = 10
    R5 = 11


HOLE_SLOTS = 12


class StatusOut(IntEnum):
    """What a form does to the tracked status id when it is not a fixed id (ids are >= 1)."""

    KEEP = -1  # does not touch the flags
    UNKNOWN = 0  # flags depend on run time (shift by CL, popf): the id is in env


@dataclass(frozen=True, slots=True)
class Form:
    """key: hashable, picklable, everything the frontend needs to emit it again; name: readable, unique.

    reads_status: the IR depends on incoming flags (so stencils vary by status_in).
    kills_status: every flag is overwritten or made undefined, none of the old ones is needed.
    status_out: the status id after it, or a StatusOut.
    ends_block: control never falls to the next instruction of the block (or must return to the exec loop there).
    may_fault: flags computed before it must be in env when it runs.
    """

    key: Hashable
    name: str
    reads_status: bool = False
    kills_status: bool = False
    status_out: int = StatusOut.KEEP
    ends_block: bool = False
    may_fault: bool = False


@dataclass(frozen=True, slots=True)
class Variant:
    status_live: bool = True
    status_in: int = 0


@dataclass(frozen=True, slots=True)
class Pattern:
    """One decoded encoding. `head` are the fixed bytes; fields at (offset, size) in bytes, size 0 = absent.

    regs: values of R0..R5. disp_pc_relative, imm_pc_relative: add next_pc; wrap: pcs are masked to 32 bits.
    A head is matched byte for byte; head strings of one mode are prefix-free.
    """

    form: Form
    head: bytes
    length: int
    disp: tuple[int, int] = (0, 0)
    imm: tuple[int, int] = (0, 0)
    imm2: tuple[int, int] = (0, 0)
    regs: tuple[int, ...] = ()
    disp_pc_relative: bool = False
    imm_pc_relative: bool = False
    wrap: bool = False


class RelocKind(IntEnum):
    """How a value is written: ABS8 to ABS64 its low bytes (ABS32: it fits, signed or not), REL32 value - place."""

    ABS64 = 0
    ABS32 = 1
    REL32 = 2
    ABS8 = 3
    ABS16 = 4


class SymbolKind(IntEnum):
    """What a relocation refers to."""

    HOLE = 0  # `index` is a HoleSlot
    NEXT = 1  # the code of the next instruction
    EXIT = 2  # `index` is the chained exit slot 0 or 1
    LEAVE = 3  # the gate back to the exec loop
    HELPER = 4  # `name` is a helper's symbol
    COLD = 5  # this stencil's own cold part (addend: offset in it)
    HOT = 6  # this stencil's own hot part


@dataclass(frozen=True, slots=True)
class Reloc:
    offset: int  # of the field, in the part it is in (hot: < hot_size; cold: from hot_size on, in `code`)
    kind: RelocKind
    symbol: SymbolKind
    index: int = 0
    name: str = ""
    addend: int = 0


@dataclass(frozen=True, slots=True)
class Stencil:
    """Host bytes: code[:hot_size] runs in line and falls through to the next instruction; the rest goes out of line."""

    code: bytes
    hot_size: int
    relocs: tuple[Reloc, ...]
    uses_exits: tuple[int, ...] = field(default=())  # chained exit slots the IR names


class Frontend(Protocol):
    """A guest, as the translator sees it (registered by name in tcg.exec.registry)."""

    name: str
    env: Struct

    def decode(self, code: bytes, pc: int, mode: int) -> Pattern:
        """Decode the first instruction of `code` (as many bytes as the page has, at most the longest encoding).

        An undefined or unsupported encoding gives a pattern whose form raises the guest's undefined-instruction fault;
        one cut off by the end of `code` raises Truncated.
        """

    def emit(self, form: Form, variant: Variant, builder: Builder) -> None:
        """Write the IR of `form` with symbolic holes, beginning with insn_start."""


class Truncated(Exception):
    """The encoding goes on past the bytes given: fetch the next page, then decode again."""
