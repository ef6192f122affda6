"""PURE helpers that the host has an instruction for, expanded in line.

A row: helper name -> host feature, LLVM intrinsic, result, arguments. `imm` is an i8 that must be constant in the form;
where it is not, or the host lacks the feature, the helper is called. Names are the guest's mnemonics, since each of
these is one instruction of one guest; meanings: SDM volume 2.
"""

from dataclasses import dataclass

from backends.llvm.emitter import LLVM_TYPE, Emitter
from tcg.ir.block import Const, HelperDecl, Op, Operand
from tcg.ir.types import I8, I16, I32, I64, I128, INT_OF_SIZE, V128, Type

_B, _H, _W, _D = "<16 x i8>", "<8 x i16>", "<4 x i32>", "<2 x i64>"
_IMM = "imm"


@dataclass(frozen=True, slots=True)
class _Row:
    feature: str
    intrinsic: str
    result: str
    args: tuple[str, ...]


INLINE: dict[str, _Row] = {}


def _rows(feature: str, result: str, args: tuple[str, ...], **intrinsics: str) -> None:
    for name, intrinsic in intrinsics.items():
        INLINE[f"x86_{name}"] = _Row(feature, f"llvm.x86.{intrinsic}", result, args)


_rows(
    "aes",
    _D,
    (_D, _D),
    aesenc="aesni.aesenc",
    aesenclast="aesni.aesenclast",
    aesdec="aesni.aesdec",
    aesdeclast="aesni.aesdeclast",
)
_rows("aes", _D, (_D,), aesimc="aesni.aesimc")
_rows("aes", _D, (_D, _IMM), aeskeygenassist="aesni.aeskeygenassist")
_rows("pclmul", _D, (_D, _D, _IMM), pclmulqdq="pclmulqdq")
_rows("sha", _W, (_W, _W), sha1nexte="sha1nexte", sha1msg1="sha1msg1", sha1msg2="sha1msg2", sha256msg1="sha256msg1")
_rows("sha", _W, (_W, _W), sha256msg2="sha256msg2")
_rows("sha", _W, (_W, _W, _W), sha256rnds2="sha256rnds2")
_rows("sha", _W, (_W, _W, _IMM), sha1rnds4="sha1rnds4")
_rows("bmi2", "i64", ("i64", "i64"), pdep="bmi.pdep.64", pext="bmi.pext.64")
_rows("sse2", _W, (_H, _H), pmaddwd="sse2.pmadd.wd")
_rows("sse2", _D, (_B, _B), psadbw="sse2.psad.bw")
_rows("ssse3", _H, (_B, _B), pmaddubsw="ssse3.pmadd.ub.sw.128")
_rows("ssse3", _H, (_H, _H), pmulhrsw="ssse3.pmul.hr.sw.128")
_rows("sse4.1", _H, (_H,), phminposuw="sse41.phminposuw")
_rows("sse4.1", _H, (_B, _B, _IMM), mpsadbw="sse41.mpsadbw")
_rows("sse", "<4 x float>", ("<4 x float>",), rcpps="sse.rcp.ps", rsqrtps="sse.rsqrt.ps")
_rows("sse4.2", _B, (_B, _B, _IMM), pcmpistrm="sse42.pcmpistrm128")
_rows("sse4.2", _B, (_B, "i32", _B, "i32", _IMM), pcmpestrm="sse42.pcmpestrm128")

_FLOAT = {"x86_dpps": "dpps", "x86_dppd": "dppd"}  # asm with side effects: they set MXCSR's flags

_INT = {"i8": I8, "i16": I16, "i32": I32, "i64": I64}


def _argument(e: Emitter, operand: Operand, kind: str) -> str | None:
    """The operand as `kind`, typed; None where it cannot be one."""
    if kind == _IMM:
        return f"i8 {operand.value & 0xFF}" if isinstance(operand, Const) and operand.type.kind == "int" else None
    if kind in _INT:
        return _resized(e, operand, _INT[kind]) if operand.type in _INT.values() else None
    if operand.type not in (V128, I128):
        return None
    return f"{kind} {e.new(f'bitcast {e.typed(operand)} to {kind}')}"


def _resized(e: Emitter, operand: Operand, to: Type) -> str:
    if operand.type is to:
        return e.typed(operand)
    how = "trunc" if operand.type.width > to.width else "zext"
    return f"{LLVM_TYPE[to]} {e.new(f'{how} {e.typed(operand)} to {LLVM_TYPE[to]}')}"


def expand(e: Emitter, helper: HelperDecl, op: Op) -> bool:
    """Write the call in line and say True, or leave it to be a call."""
    if helper.name in _FLOAT:
        return _dot_product(e, _FLOAT[helper.name], op)
    if helper.name == "x86_crc32c":
        return _crc32c(e, op)
    row = INLINE.get(helper.name)
    if row is None or row.feature not in e.module.host.on or len(row.args) != len(op.ins):
        return False
    if any(k == _IMM and not isinstance(v, Const) for v, k in zip(op.ins, row.args, strict=True)):
        return False
    args = [_argument(e, v, k) for v, k in zip(op.ins, row.args, strict=True)]
    known = [a for a in args if a is not None]
    if len(known) != len(args):
        return False
    types = ("i8" if k == _IMM else k for k in row.args)
    function = e.module.intrinsic(row.intrinsic, row.result, *types)
    value = e.new(f"call {row.result} {function}({', '.join(known)})")
    out = op.outs[0]
    if row.result not in _INT:
        e.set(out, f"bitcast {row.result} {value} to {LLVM_TYPE[out.type]}")
    elif _INT[row.result] is out.type:
        e.alias(out, value)
    else:
        how = "trunc" if _INT[row.result].width > out.type.width else "zext"
        e.set(out, f"{how} {row.result} {value} to {LLVM_TYPE[out.type]}")
    return True


def _crc32c(e: Emitter, op: Op) -> bool:
    """(crc, value, size in bytes) -> crc, all i64."""
    crc, value, size = op.ins
    if "sse4.2" not in e.module.host.on or not isinstance(size, Const) or size.value not in INT_OF_SIZE:
        return False
    source = INT_OF_SIZE[size.value]
    width = I64 if source is I64 else I32
    kind, source_kind = LLVM_TYPE[width], LLVM_TYPE[source]
    name = f"llvm.x86.sse42.crc32.{width.width}.{source.width}"
    function = e.module.intrinsic(name, kind, kind, source_kind)
    result = e.new(f"call {kind} {function}({_resized(e, crc, width)}, {_resized(e, value, source)})")
    if width is I64:
        e.alias(op.outs[0], result)
    else:
        e.set(op.outs[0], f"zext i32 {result} to i64")
    return True


def _dot_product(e: Emitter, name: str, op: Op) -> bool:
    imm = op.ins[2]
    if "sse4.1" not in e.module.host.on or not isinstance(imm, Const):
        return False
    text = (
        f"{name} $${imm.value & 0xFF}, $2, $0" if not e.module.host.avx else f"v{name} $${imm.value & 0xFF}, $2, $1, $0"
    )
    constraint = "=x,x,x" if e.module.host.avx else "=x,0,x"
    a, b = e.typed(op.ins[0]), e.typed(op.ins[1])
    e.set(op.outs[0], f'call <2 x i64> asm sideeffect "{text}", "{constraint}"({a}, {b})')
    return True
