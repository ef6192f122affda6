"""THE op table: every IR op, declared once. Builder, printer, verifier, interpreter and backends read these rows.

A row names the op, its inputs' and outputs' type rule, the attributes it carries, its effects, and its meaning in one
sentence. To add an op: try to say it with existing ones; else one row here, its meaning in `interp`, then run
`tests/test_completeness.py`, which lists what is still missing.

Type rules (checked by `verify`, used by `builder` to infer the output):
  SAME      all inputs and the output have one type T from `types`
  SHIFT     (T, T) -> T; the count is taken modulo the width
  COMPARE   (T, T) -> i1
  SELECT    (i1, T, T) -> T
  CONVERT   (T) -> U, both given
  CUSTOM    checked by a rule of its own in `verify`
"""

from dataclasses import dataclass
from enum import Enum

from tcg.ir.types import F32, F64, F80, I8, I16, I32, I64, I128, V128, Effect, Type


class Rule(Enum):
    SAME = 1
    SHIFT = 2
    COMPARE = 3
    SELECT = 4
    CONVERT = 5
    CUSTOM = 6


@dataclass(frozen=True, slots=True)
class OpDef:
    """One row: `ins`, `outs`: numbers of inputs and outputs (-1: any); `attrs`: attribute names in print order."""

    name: str
    ins: int
    outs: int
    rule: Rule
    types: tuple[Type, ...]
    attrs: tuple[str, ...]
    effects: Effect
    doc: str
    commutes: bool = False


OPS: dict[str, OpDef] = {}

_INT = (I8, I16, I32, I64, I128)
_INT64 = (I8, I16, I32, I64)
_BITS = (Type.I1, I8, I16, I32, I64, I128, V128)
_FLOAT = (F32, F64, F80, V128)
_FP = Effect.FP


def _op(
    name: str,
    ins: int,
    outs: int,
    rule: Rule,
    types: tuple[Type, ...],
    doc: str,
    *,
    attrs: tuple[str, ...] = (),
    effects: Effect = Effect.NONE,
    commutes: bool = False,
) -> None:
    assert name not in OPS, name
    OPS[name] = OpDef(name, ins, outs, rule, types, attrs, effects, doc, commutes)


# --- integers --------------------------------------------------------------------------------------------------------
_op("add", 2, 1, Rule.SAME, _INT, "a + b modulo 2^width", commutes=True)
_op("sub", 2, 1, Rule.SAME, _INT, "a - b modulo 2^width")
_op("mul", 2, 1, Rule.SAME, _INT, "low half of a * b", commutes=True)
_op("mulhu", 2, 1, Rule.SAME, _INT64, "high half of the unsigned product", commutes=True)
_op("mulhs", 2, 1, Rule.SAME, _INT64, "high half of the signed product", commutes=True)
_op("and", 2, 1, Rule.SAME, _BITS, "bitwise and", commutes=True)
_op("or", 2, 1, Rule.SAME, _BITS, "bitwise or", commutes=True)
_op("xor", 2, 1, Rule.SAME, _BITS, "bitwise exclusive or", commutes=True)
_op("andc", 2, 1, Rule.SAME, _BITS, "a and not b")
_op("not", 1, 1, Rule.SAME, _BITS, "bitwise complement")
_op("neg", 1, 1, Rule.SAME, _INT, "0 - a")
_op("shl", 2, 1, Rule.SHIFT, _INT, "a shifted left by b mod width")
_op("shr", 2, 1, Rule.SHIFT, _INT, "a shifted right logically by b mod width")
_op("sar", 2, 1, Rule.SHIFT, _INT, "a shifted right arithmetically by b mod width")
_op("rotl", 2, 1, Rule.SHIFT, _INT64, "a rotated left by b mod width")
_op("rotr", 2, 1, Rule.SHIFT, _INT64, "a rotated right by b mod width")
_op("divu", 2, 1, Rule.SAME, _INT64, "unsigned quotient; b must not be 0 (the frontend has checked)")
_op("remu", 2, 1, Rule.SAME, _INT64, "unsigned remainder; b must not be 0")
_op("divs", 2, 1, Rule.SAME, _INT64, "signed quotient, truncated; b not 0, no overflow")
_op("rems", 2, 1, Rule.SAME, _INT64, "signed remainder of the truncated quotient; b not 0, no overflow")
_op("divu2", 3, 2, Rule.CUSTOM, (I64,), "(hi, lo, d) -> quotient, remainder of hi:lo / d unsigned; needs hi < d")
_op("divs2", 3, 2, Rule.CUSTOM, (I64,), "(hi, lo, d) -> quotient, remainder signed; the quotient must fit 64 bits")
_op("clz", 1, 1, Rule.SAME, _INT64, "leading zero bits; width for 0")
_op("ctz", 1, 1, Rule.SAME, _INT64, "trailing zero bits; width for 0")
_op("popcnt", 1, 1, Rule.SAME, _INT64, "number of one bits")
_op("bswap", 1, 1, Rule.SAME, (I16, I32, I64), "bytes reversed")
_op("zext", 1, 1, Rule.CONVERT, _INT, "zero extension to a wider integer (from i1 too)")
_op("sext", 1, 1, Rule.CONVERT, _INT, "sign extension to a wider integer (from i1: 0 or all ones)")
_op("trunc", 1, 1, Rule.CONVERT, _INT, "low bits (to i1 too: bit 0)")
_op("bitcast", 1, 1, Rule.CONVERT, (I32, I64, I128, F32, F64, V128), "the same bits as another type of the same width")
_op("setcond", 2, 1, Rule.COMPARE, _INT, "i1: a COND b", attrs=("cond",))
_op("select", 3, 1, Rule.SELECT, (*_BITS, F32, F64, F80), "c ? a : b")

# --- vectors (V128, divided by `lane`) -------------------------------------------------------------------------------
_L = ("lane",)
for _name, _doc, _c in (
    ("vadd", "lane-wise sum", True),
    ("vsub", "lane-wise difference", False),
    ("vmul", "low half of lane product", True),
    ("vmulhu", "high half of the unsigned lane product", True),
    ("vmulhs", "high half of the signed lane product", True),
    ("vqaddu", "unsigned saturating sum", True),
    ("vqadds", "signed saturating sum", True),
    ("vqsubu", "unsigned saturating difference", False),
    ("vqsubs", "signed saturating difference", False),
    ("vminu", "unsigned minimum", True),
    ("vmaxu", "unsigned maximum", True),
    ("vmins", "signed minimum", True),
    ("vmaxs", "signed maximum", True),
    ("vavgu", "(a + b + 1) >> 1 without overflow", True),
    ("vcmpeq", "all ones where equal, else 0", True),
    ("vcmpgts", "all ones where a > b signed, else 0", False),
    ("vziplo", "lanes of the low halves interleaved: a0 b0 a1 b1 ...", False),
    ("vziphi", "lanes of the high halves interleaved", False),
    ("vnarrows", "lanes of a then b saturated signed to half width, signed source (lane = source lane)", False),
    ("vnarrowu", "lanes of a then b saturated to unsigned half width, signed source (lane = source lane)", False),
):
    _op(_name, 2, 1, Rule.SAME, (V128,), _doc, attrs=_L, commutes=_c)
_op("vabs", 1, 1, Rule.SAME, (V128,), "lane-wise absolute value (most negative stays)", attrs=_L)
_op(
    "vshl", 2, 1, Rule.CUSTOM, (V128,), "every lane shifted left by the i64 count; 0 when count >= lane width", attrs=_L
)
_op(
    "vshr", 2, 1, Rule.CUSTOM, (V128,), "every lane shifted right logically by the i64 count; 0 when >= width", attrs=_L
)
_op("vsar", 2, 1, Rule.CUSTOM, (V128,), "every lane shifted right arithmetically; sign fill when >= width", attrs=_L)
_op(
    "vshuf",
    2,
    1,
    Rule.CUSTOM,
    (V128,),
    "bytes picked from a (0-15), b (16-31), or 0 (32) by the constant tuple `mask`",
    attrs=("mask",),
)
_op("vtbl", 2, 1, Rule.CUSTOM, (V128,), "byte i of a indexed by the low 4 bits of byte i of b; 0 when its bit 7 is set")
_op("vdup", 1, 1, Rule.CUSTOM, (V128,), "the integer of lane width in every lane", attrs=_L)
_op("vext", 1, 1, Rule.CUSTOM, (V128,), "lane number `index` as an integer of lane width", attrs=("lane", "index"))
_op("vins", 2, 1, Rule.CUSTOM, (V128,), "a with lane `index` replaced by the integer b", attrs=("lane", "index"))
_op("vwidens", 1, 1, Rule.CUSTOM, (V128,), "low lanes sign-extended to `to` lanes", attrs=("lane", "to"))
_op("vwidenu", 1, 1, Rule.CUSTOM, (V128,), "low lanes zero-extended to `to` lanes", attrs=("lane", "to"))
_op("vmovmsk", 1, 1, Rule.CUSTOM, (V128,), "i32 whose bit i is the top bit of lane i", attrs=_L)

# --- floating point: scalars by type; on V128 lane S or DF ------------------------------------------------------------
# NaN rule: the guest's (x86: a quieted first operand if a NaN, else quieted second; arm: signalling first); it is the
# `nan` attribute, "x86" or "arm". The control and sticky flags that these ops read and change are outside env or in its
# common part (tcg.runtime.layout), never in the guest's part: the optimizer forwards guest state across them. Rounding
# is the guest's control register unless `round` says otherwise.
_F = ("lane", "nan")
for _name, _doc in (("fadd", "a + b"), ("fsub", "a - b"), ("fmul", "a * b"), ("fdiv", "a / b")):
    _op(_name, 2, 1, Rule.SAME, _FLOAT, _doc, attrs=_F, effects=_FP)
_op(
    "fmin",
    2,
    1,
    Rule.SAME,
    (F32, F64, V128),
    "x86 MIN: b if either is a NaN or both are zero, else the smaller",
    attrs=_F,
    effects=_FP,
)
_op(
    "fmax",
    2,
    1,
    Rule.SAME,
    (F32, F64, V128),
    "x86 MAX: b if either is a NaN or both are zero, else the larger",
    attrs=_F,
    effects=_FP,
)
_op("fsqrt", 1, 1, Rule.SAME, _FLOAT, "square root", attrs=_F, effects=_FP)
_op(
    "fround",
    1,
    1,
    Rule.SAME,
    (F32, F64, V128),
    "to an integral value; `exact` false suppresses inexact",
    attrs=("lane", "round", "exact"),
    effects=_FP,
)
_op(
    "fcmp",
    2,
    1,
    Rule.CUSTOM,
    (F32, F64, F80),
    "i1: a FCOND b; `signal`: a quiet NaN raises invalid too",
    attrs=("fcond", "signal"),
    effects=_FP,
)
_op("vfcmp", 2, 1, Rule.CUSTOM, (V128,), "lane mask of a FCOND b", attrs=("lane", "fcond", "signal"), effects=_FP)
_op("f2f", 1, 1, Rule.CONVERT, (F32, F64, F80), "float to float, rounded", effects=_FP)
_op("i2f", 1, 1, Rule.CONVERT, (F32, F64, F80), "signed integer (i32, i64) to float, rounded", effects=_FP)
_op(
    "f2i",
    1,
    1,
    Rule.CONVERT,
    (I32, I64),
    "float to signed integer; out of range or NaN: invalid, x86's integer indefinite",
    attrs=("round",),
    effects=_FP,
)

# --- guest state (env) -----------------------------------------------------------------------------------------------
_op("ld", 0, 1, Rule.CUSTOM, (), "load from env at `ref` (an EnvRef)", attrs=("ref",), effects=Effect.READS_ENV)
_op("st", 1, 0, Rule.CUSTOM, (), "store to env at `ref`", attrs=("ref",), effects=Effect.WRITES_ENV)
_op(
    "ldx",
    1,
    1,
    Rule.CUSTOM,
    (),
    "load from env at ref + the i64 byte offset; stays within [ref, ref + span)",
    attrs=("ref", "span"),
    effects=Effect.READS_ENV,
)
_op(
    "stx",
    2,
    0,
    Rule.CUSTOM,
    (),
    "store input 1 to env at ref + i64 byte offset (input 0)",
    attrs=("ref", "span"),
    effects=Effect.WRITES_ENV,
)

# --- guest memory ----------------------------------------------------------------------------------------------------
_RM, _WM, _MF = Effect.READS_MEM, Effect.WRITES_MEM, Effect.MAY_FAULT
_op(
    "qemu_ld",
    1,
    1,
    Rule.CUSTOM,
    (),
    "guest load at the i64 gva; a widening load extends by memop.signed",
    attrs=("memop",),
    effects=_RM | _MF,
)
_op(
    "qemu_st",
    2,
    0,
    Rule.CUSTOM,
    (),
    "guest store of input 1 (its low memop.size bytes) at the i64 gva",
    attrs=("memop",),
    effects=_WM | _MF,
)
for _name, _doc in (
    ("xchg", "b"),
    ("add", "old + b"),
    ("sub", "old - b"),
    ("and", "old & b"),
    ("or", "old | b"),
    ("xor", "old ^ b"),
):
    _op(
        f"atomic_{_name}",
        2,
        1,
        Rule.CUSTOM,
        (),
        f"memory at gva becomes {_doc}, atomically and as a full barrier; gives the old value",
        attrs=("memop",),
        effects=_RM | _WM | _MF | Effect.ORDERS,
    )
_op(
    "atomic_cmpxchg",
    3,
    1,
    Rule.CUSTOM,
    (),
    "(gva, expected, new) -> old; stores new when old == expected; a full barrier",
    attrs=("memop",),
    effects=_RM | _WM | _MF | Effect.ORDERS,
)
_op(
    "mb",
    0,
    0,
    Rule.CUSTOM,
    (),
    "order earlier and later accesses as the `barrier` set says",
    attrs=("barrier",),
    effects=Effect.ORDERS,
)

# --- calls, control, exits --------------------------------------------------------------------------------------------
_op(
    "call", -1, -1, Rule.CUSTOM, (), "call the `helper` (a HelperDecl), whose declared effects count", attrs=("helper",)
)
_op("label", 0, 0, Rule.CUSTOM, (), "a place for local branches", attrs=("label",), effects=Effect.CONTROL)
_op("br", 0, 0, Rule.CUSTOM, (), "go to the label", attrs=("label",), effects=Effect.CONTROL)
_op(
    "brcond",
    1,
    0,
    Rule.CUSTOM,
    (),
    "go to the label when the i1 is true; `likely` True/False/None is a hint",
    attrs=("label", "likely"),
    effects=Effect.CONTROL,
)
_op("insn_start", 1, 0, Rule.CUSTOM, (), "a guest instruction at i64 pc begins here", effects=Effect.SIDE)
_op(
    "goto_tb",
    1,
    0,
    Rule.CUSTOM,
    (),
    "leave to the i64 pc through chained exit `slot` (0 or 1)",
    attrs=("slot",),
    effects=Effect.ENDS_BLOCK,
)
_op("goto_ptr", 1, 0, Rule.CUSTOM, (), "leave to the i64 pc through the jump cache", effects=Effect.ENDS_BLOCK)
_op(
    "exit",
    1,
    0,
    Rule.CUSTOM,
    (),
    "store the i64 pc, return to the exec loop with `reason` (an int of ExitReason)",
    attrs=("reason",),
    effects=Effect.ENDS_BLOCK,
)
_op(
    "raise",
    1,
    0,
    Rule.CUSTOM,
    (),
    "return to the exec loop to deliver guest exception `vector` with the i64 error code at this insn's pc",
    attrs=("vector",),
    effects=Effect.ENDS_BLOCK,
)
