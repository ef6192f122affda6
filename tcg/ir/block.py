"""IR values, ops and blocks: plain data. `builder` makes them, `text` prints them, `verify` checks them.

A block is a straight list of ops with local labels. Every temp is assigned once (SSA without phi): a value that differs
by path goes through `select` or guest state. Falling off the end of a block means "the next guest instruction".
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tcg.ir.ops import OPS, OpDef
from tcg.ir.types import Effect, Type


@dataclass(frozen=True, slots=True)
class Const:
    """A known value: its bits as a non-negative int below 2^width (floats and vectors by their bits)."""

    type: Type
    value: int

    def __post_init__(self) -> None:
        assert 0 <= self.value <= self.type.mask, (self.type, self.value)


@dataclass(frozen=True, slots=True)
class Hole:
    """A constant whose value is patched in when a stencil is placed.

    lo, hi: inclusive signed bounds, which let a host encode it shortly (register offsets: 0..65535; 32-bit immediates).
    """

    name: str
    type: Type
    lo: int = -(1 << 63)
    hi: int = (1 << 63) - 1


@dataclass(frozen=True, slots=True, eq=False)
class Temp:
    """One SSA value; identity is equality."""

    type: Type
    id: int


Operand = Temp | Const | Hole


@dataclass(frozen=True, slots=True)
class EnvRef:
    """A place in env: `offset` bytes from env, plus the hole's value if there is one.

    span: (first, end) of the bytes a hole may lead to, so that the optimizer knows what it cannot alias.
    """

    offset: int
    hole: Hole | None = None
    span: tuple[int, int] = (0, 0)

    def __add__(self, delta: int) -> "EnvRef":
        return EnvRef(self.offset + delta, self.hole, self.span)


@dataclass(frozen=True, slots=True)
class HelperDecl:
    """A function that JIT code may call: `helper_<name>(env, *args) -> ret` in the run-time object.

    args, ret: i32, i64, f32, f64, v128 or i128 (ret None: no value); v128/i128 go by pointer to env scratch (backend).
    effects: what the optimizer must assume. MAY_FAULT: env.exception is tested after the call.
    PURE helpers (Effect.NONE) may be expanded in line by a backend that knows the name.
    """

    name: str
    args: tuple[Type, ...]
    ret: Type | None
    effects: Effect


@dataclass(frozen=True, slots=True, eq=False)
class Label:
    id: int


@dataclass(slots=True, eq=False)
class Op:
    """One op: its row, outputs, inputs, attributes by name."""

    row: OpDef
    outs: tuple[Temp, ...]
    ins: tuple[Operand, ...]
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.row.name

    @property
    def effects(self) -> Effect:
        """The row's effects; a call has its helper's."""
        if self.row.name == "call":
            helper: HelperDecl = self.attrs["helper"]
            return helper.effects
        return self.row.effects


@dataclass(slots=True)
class Block:
    """A list of ops; `holes` by name, in order of first use."""

    ops: list[Op] = field(default_factory=list)
    next_temp: int = 0
    next_label: int = 0

    def new_temp(self, type_: Type) -> Temp:
        self.next_temp += 1
        return Temp(type_, self.next_temp - 1)

    def append(self, name: str, outs: Sequence[Temp], ins: Sequence[Operand], **attrs: Any) -> Op:
        op = Op(OPS[name], tuple(outs), tuple(ins), attrs)
        self.ops.append(op)
        return op

    def holes(self) -> dict[str, Hole]:
        found: dict[str, Hole] = {}
        for op in self.ops:
            for value in op.ins:
                if isinstance(value, Hole):
                    found.setdefault(value.name, value)
            ref = op.attrs.get("ref")
            if ref is not None and ref.hole is not None:
                found.setdefault(ref.hole.name, ref.hole)
        return found
