"""Value types, memory operations and barrier sets of the IR: the vocabulary every other file of `tcg.ir` speaks.

A type says how many bits a value has and how they may be used. Integers carry no sign: the op does. `V128` is one
128-bit vector whose lanes an op's `lane` attribute names; a 64-bit (MMX) vector is the low half of a `V128`.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag


class Type(Enum):
    """(name, width in bits, kind) of an IR value; kind is one of "int", "float", "vec"."""

    I1 = ("i1", 1, "int")
    I8 = ("i8", 8, "int")
    I16 = ("i16", 16, "int")
    I32 = ("i32", 32, "int")
    I64 = ("i64", 64, "int")
    I128 = ("i128", 128, "int")
    F32 = ("f32", 32, "float")
    F64 = ("f64", 64, "float")
    F80 = ("f80", 80, "float")
    V128 = ("v128", 128, "vec")

    def __init__(self, label: str, width: int, kind: str) -> None:
        self.label = label
        self.width = width
        self.kind = kind

    @property
    def size(self) -> int:
        """Bytes a value takes in env or guest memory (F80: 10; I1 is never stored)."""
        return self.width // 8

    @property
    def mask(self) -> int:
        return (1 << self.width) - 1

    def __repr__(self) -> str:
        return self.label

    __str__ = __repr__


I1, I8, I16, I32, I64, I128 = Type.I1, Type.I8, Type.I16, Type.I32, Type.I64, Type.I128
F32, F64, F80, V128 = Type.F32, Type.F64, Type.F80, Type.V128
INT_OF_SIZE = {1: I8, 2: I16, 4: I32, 8: I64, 16: I128}
TYPE_OF_LABEL = {t.label: t for t in Type}


class Lane(Enum):
    """How an op on a `V128` (or a scalar float) divides its bits: (name, width, float?)."""

    B = ("b", 8, False)
    H = ("h", 16, False)
    W = ("w", 32, False)
    D = ("d", 64, False)
    S = ("s", 32, True)
    DF = ("df", 64, True)

    def __init__(self, label: str, width: int, is_float: bool) -> None:
        self.label = label
        self.width = width
        self.is_float = is_float

    @property
    def count(self) -> int:
        return 128 // self.width

    def __repr__(self) -> str:
        return self.label

    __str__ = __repr__


class Cond(Enum):
    """Integer comparisons of `setcond` and `brcond` (TCG's names); `U` marks the unsigned ones."""

    EQ = "eq"
    NE = "ne"
    LT = "lt"
    GE = "ge"
    LE = "le"
    GT = "gt"
    LTU = "ltu"
    GEU = "geu"
    LEU = "leu"
    GTU = "gtu"


class FCond(Enum):
    """Float comparisons: ordered ones are false and `UN` true when an operand is a NaN.

    `signal`: whether a quiet NaN raises invalid is the op's attribute, not the predicate's.
    """

    EQ = "eq"
    LT = "lt"
    LE = "le"
    UN = "un"


class Rounding(IntEnum):
    """Rounding of a float op: IEEE 754-2019 section 4.3, or the guest's control register (DYN)."""

    NEAREST = 0
    DOWN = 1
    UP = 2
    ZERO = 3
    DYN = 7


class Barrier(IntFlag):
    """Orderings that `mb` guarantees between earlier and later accesses (TCG_MO_*)."""

    LD_LD = 1
    ST_LD = 2
    LD_ST = 4
    ST_ST = 8
    ALL = 15


class Effect(IntFlag):
    """What an op or helper may do besides computing its outputs from its inputs."""

    NONE = 0
    READS_ENV = 1
    WRITES_ENV = 2
    READS_MEM = 4
    WRITES_MEM = 8
    MAY_FAULT = 16  # may leave the block with a guest exception (or any exit request)
    ENDS_BLOCK = 32  # control never comes back
    FP = 64  # reads the FP control state, accumulates FP exception flags
    ORDERS = 128  # a memory barrier: accesses must not move across
    CONTROL = 256  # label or local branch
    SIDE = 512  # any other side effect (I/O, time): never removed, never reordered


@dataclass(frozen=True, slots=True)
class MemOp:
    """One guest memory access: `size` bytes (1, 2, 4, 8, 16), signedness of a widening load, byte order, alignment.

    align: required alignment in bytes (1 = none): a violation raises the guest's alignment fault.
    atomic: the access must be single-copy atomic when naturally aligned (always true for sizes <= 8 on our hosts).
    """

    size: int
    signed: bool = False
    big_endian: bool = False
    align: int = 1
    atomic: bool = True

    def __str__(self) -> str:
        text = f"{'s' if self.signed else 'u'}{self.size * 8}{'be' if self.big_endian else 'le'}"
        return text + (f".a{self.align}" if self.align > 1 else "") + ("" if self.atomic else ".na")
