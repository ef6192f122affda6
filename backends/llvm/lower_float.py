"""Floating point on an x86-64 host: the host's own instructions under the guest's control registers.

While JIT code runs, MXCSR holds the guest's rounding, FTZ, DAZ and sticky flags with every exception masked (`gates`).
Arithmetic is inline asm with side effects: LLVM would fold, commute (which changes the NaN that results) or drop it,
and the flags with it. Operand order gives x86's NaN rule: the first source's NaN wins.

F80 ops run on the x87 under env.host_fcw and leave their flags (FSW bits 0..5 and C1) ORed into env.x87_flags; the
register stack is empty between ops. Conversions go through memory, in env.scratch[7].
"""

from backends.llvm.emitter import LLVM_TYPE, Emitter, Unsupported, attr, lowers
from tcg.ir.block import Op, Operand
from tcg.ir.types import F32, F64, F80, I32, I64, FCond, Lane, Rounding, Type
from tcg.runtime.layout import ENV

_SCRATCH = ENV.offset("scratch", 7)
_FSW_KEPT = 0x23F  # IE DE ZE OE UE PE, C1


def _suffix(op: Op, operand: Operand) -> str:
    """ss, sd, ps or pd."""
    if operand.type is F32:
        return "ss"
    if operand.type is F64:
        return "sd"
    return "ps" if attr(op, "lane") is Lane.S else "pd"


def _check_nan_rule(op: Op) -> None:
    if op.attrs.get("nan", "x86") != "x86":
        raise Unsupported(f"NaN rule {op.attrs['nan']} on an x86 host")


def _three(e: Emitter, op: Op, name: str, imm: str = "") -> None:
    """out = a NAME b: VEX three-operand form, or the SSE form that overwrites its first."""
    a, b = op.ins
    kind = LLVM_TYPE[a.type]
    imm = f"{imm}, " if imm else ""
    text, constraint = (
        (f"v{name} {imm}$2, $1, $0", "=x,x,x") if e.module.host.avx else (f"{name} {imm}$2, $0", "=x,0,x")
    )
    e.set(op.outs[0], f'call {kind} asm sideeffect "{text}", "{constraint}"({e.typed(a)}, {e.typed(b)})')


def _two(e: Emitter, name: str, operand: str, result: str, *, scalar: bool, imm: str = "") -> str:
    """result = NAME operand. The VEX form of a scalar takes its upper bits from a third register."""
    imm = f"{imm}, " if imm else ""
    text = f"{name} {imm}$1, $0"
    if e.module.host.avx:
        text = f"v{name} {imm}$1, $1, $0" if scalar else "v" + text
    return e.new(f'call {result} asm sideeffect "{text}", "=x,x"({operand})')


# --- x87 --------------------------------------------------------------------------------------------------------------


def _env_word(e: Emitter, offset: int, kind: str = "i16") -> str:
    return f"ptr elementtype({kind}) {e.env_at(offset)}"


def _control_word(e: Emitter, rounding: Rounding) -> str:
    """The FCW to run under: the guest's, or a copy with another rounding in scratch."""
    if rounding is Rounding.DYN:
        return _env_word(e, ENV.offset("host_fcw"))
    word = e.new(f"and i32 {e.load_env('host_fcw', 'i32')}, {0xFFFF & ~0xC00}")
    word = e.new(f"or i32 {word}, {int(rounding) << 10}")
    e.line(f"store i32 {word}, ptr {e.env_at(_SCRATCH + 8)}")
    return _env_word(e, _SCRATCH + 8)


def _keep_flags(e: Emitter, fsw: str) -> None:
    kept = e.new(f"and i32 {e.new(f'zext i16 {fsw} to i32')}, {_FSW_KEPT}")
    flags = e.new(f"or i32 {e.load_env('x87_flags', 'i32')}, {kept}")
    e.store_env("x87_flags", f"i32 {flags}")


_CLOBBERS = "~{dirflag},~{fpsr},~{flags}"


def _x87(e: Emitter, op: Op, code: str, *values: str, rounding: Rounding = Rounding.DYN) -> None:
    """out = CODE on st0 (and st1)."""
    inputs = ["*m", "0", "{st(1)}"][: len(values) + 1]
    args = ", ".join([_control_word(e, rounding), *values])
    pair = e.new(
        f'call {{ x86_fp80, i16 }} asm sideeffect "fldcw $2; {code}; fnstsw %ax; fnclex", '
        f'"={{st}},={{ax}},{",".join(inputs)},{_CLOBBERS}"({args})'
    )
    _keep_flags(e, e.new(f"extractvalue {{ x86_fp80, i16 }} {pair}, 1"))
    e.set(op.outs[0], f"extractvalue {{ x86_fp80, i16 }} {pair}, 0")


def _x87_load(e: Emitter, op: Op, code: str, kind: str) -> None:
    """out = an integer or shorter float, loaded from memory."""
    e.line(f"store {e.typed(op.ins[0])}, ptr {e.env_at(_SCRATCH)}")
    args = f"{_env_word(e, ENV.offset('host_fcw'))}, {_env_word(e, _SCRATCH, kind)}"
    pair = e.new(
        f'call {{ x86_fp80, i16 }} asm sideeffect "fldcw $2; {code} $3; fnstsw %ax; fnclex", '
        f'"={{st}},={{ax}},*m,*m,{_CLOBBERS}"({args})'
    )
    _keep_flags(e, e.new(f"extractvalue {{ x86_fp80, i16 }} {pair}, 1"))
    e.set(op.outs[0], f"extractvalue {{ x86_fp80, i16 }} {pair}, 0")


def _x87_store(e: Emitter, op: Op, code: str, kind: str, rounding: Rounding = Rounding.DYN) -> None:
    """An integer or shorter float, stored through memory; the instruction pops."""
    word = _control_word(e, rounding)
    fsw = e.new(
        f'call i16 asm sideeffect "fldcw $2; {code} $1; fnstsw %ax; fnclex", '
        f'"={{ax}},=*m,*m,{{st}},~{{st}},{_CLOBBERS}"'
        f"({_env_word(e, _SCRATCH, kind)}, {word}, {e.typed(op.ins[0])})"
    )
    _keep_flags(e, fsw)
    e.set(op.outs[0], f"load {kind}, ptr {e.env_at(_SCRATCH)}")


# --- arithmetic -------------------------------------------------------------------------------------------------------


@lowers("fadd", "fsub", "fmul", "fdiv", "fmin", "fmax")
def _arithmetic(e: Emitter, op: Op) -> None:
    _check_nan_rule(op)
    a, b = op.ins
    name = op.name.removeprefix("f")
    if a.type is F80:
        if name in ("min", "max"):
            raise Unsupported(f"{op.name} of f80")
        _x87(e, op, f"f{name} %st(1), %st", e.typed(a), e.typed(b))
        return
    _three(e, op, name + _suffix(op, a))


@lowers("fsqrt")
def _sqrt(e: Emitter, op: Op) -> None:
    _check_nan_rule(op)
    a = op.ins[0]
    if a.type is F80:
        _x87(e, op, "fsqrt", e.typed(a))
        return
    e.alias(
        op.outs[0],
        _two(e, f"sqrt{_suffix(op, a)}", e.typed(a), LLVM_TYPE[a.type], scalar=a.type.kind == "float"),
    )


def _round_imm(rounding: Rounding, *, exact: bool) -> int:
    """The immediate of ROUNDSS and kin (SDM vol. 2, ROUNDPD): bit 2 = MXCSR.RC, bit 3 = no precision exception."""
    return (4 if rounding is Rounding.DYN else int(rounding)) | (0 if exact else 8)


def _rounded(e: Emitter, suffix: str, operand: str, kind: str, imm: int) -> str:
    if "sse4.1" not in e.module.host.on:
        raise Unsupported("rounding to integral needs SSE4.1")
    return _two(e, f"round{suffix}", operand, kind, scalar=suffix[0] == "s", imm=f"$${imm}")


@lowers("fround")
def _round(e: Emitter, op: Op) -> None:
    a = op.ins[0]
    if a.type is F80:
        _x87(e, op, "frndint", e.typed(a), rounding=attr(op, "round"))
        return
    imm = _round_imm(attr(op, "round"), exact=attr(op, "exact"))
    e.alias(op.outs[0], _rounded(e, _suffix(op, a), e.typed(a), LLVM_TYPE[a.type], imm))


# --- comparisons ------------------------------------------------------------------------------------------------------
# (U)COMISS x, y and F(U)COMI: ZF PF CF = 111 unordered, 000 x > y, 001 x < y, 100 equal.
# Conditions are taken inside the asm: LLVM 22 may schedule the use of a flag output before the asm.

_SINGLE = {FCond.LT: "seta $0", FCond.LE: "setae $0", FCond.UN: "setp $0"}


@lowers("fcmp")
def _fcmp(e: Emitter, op: Op) -> None:
    """One comparison serves all of the same two values; a lone one takes just its condition."""
    fcond: FCond = attr(op, "fcond")
    a, b = op.ins
    if op not in e.compared:
        alike = [o for o in _until_barrier(e, op) if o.ins == op.ins and attr(o, "signal") == attr(op, "signal")]
        if len(alike) == 1 and fcond in _SINGLE:
            x, y = (a, b) if fcond is FCond.UN else (b, a)  # a < b as b "above" a: false when unordered
            (flag,) = _compare(e, op, x, y, (_SINGLE[fcond],))
            e.set(op.outs[0], f"icmp ne i8 {flag}, 0")
            return
        flags = _compare(e, op, a, b, ("sete $0", "setp $1", "setc $2"))
        e.compared.update(dict.fromkeys(alike, flags))
    equal, unordered, below = e.compared[op]
    if fcond is FCond.UN:
        e.set(op.outs[0], f"icmp ne i8 {unordered}, 0")
        return
    either = {FCond.EQ: equal, FCond.LT: below}.get(fcond) or e.new(f"or i8 {equal}, {below}")
    e.set(op.outs[0], f"icmp ugt i8 {either}, {unordered}")


def _until_barrier(e: Emitter, op: Op) -> list[Op]:
    """The comparisons from `op` on, as far as it is passed on every way and the FP control cannot change."""
    found: list[Op] = []
    for other in e.ops[e.ops.index(op) :]:
        if other.name in ("label", "call"):
            break
        if other.name == "fcmp":
            found.append(other)
    return found


def _compare(e: Emitter, op: Op, x: Operand, y: Operand, conditions: tuple[str, ...]) -> list[str]:
    """The i8 values (0 or 1) that the SETcc instructions `conditions` give after x is compared with y."""
    n = len(conditions)
    outputs, results = ["=&q"] * n, ["i8"] * n
    signal, take = attr(op, "signal"), "; ".join(conditions)
    args = f"{e.typed(x)}, {e.typed(y)}"
    if x.type is F80:
        code = f"fldcw ${n + 1}; {'fcomi' if signal else 'fucomi'} %st(1), %st; {take}; fnstsw %ax; fnclex"
        inputs = ["*m", "{st}", "{st(1)}"]
        args = f"{_env_word(e, ENV.offset('host_fcw'))}, {args}"
        outputs, results = [*outputs, "={ax}"], [*results, "i16"]
    else:
        name = ("comis" if signal else "ucomis") + ("s" if x.type is F32 else "d")
        code = f"{'v' if e.module.host.avx else ''}{name} ${n + 1}, ${n}; {take}"
        inputs = ["x", "x"]
    kind = results[0] if len(results) == 1 else "{ " + ", ".join(results) + " }"
    out = e.new(f'call {kind} asm sideeffect "{code}", "{",".join([*outputs, *inputs])},{_CLOBBERS}"({args})')
    parts = [out] if len(results) == 1 else [e.new(f"extractvalue {kind} {out}, {i}") for i in range(len(results))]
    if x.type is F80:
        _keep_flags(e, parts.pop())
    return parts


_QUIET = {FCond.EQ: 0x00, FCond.LT: 0x11, FCond.LE: 0x12, FCond.UN: 0x03}  # SDM vol. 2, CMPPD, table 3-1
_SIGNAL = {FCond.EQ: 0x10, FCond.LT: 0x01, FCond.LE: 0x02, FCond.UN: 0x13}


@lowers("vfcmp")
def _vfcmp(e: Emitter, op: Op) -> None:
    imm = (_SIGNAL if attr(op, "signal") else _QUIET)[attr(op, "fcond")]
    if imm > 7 and not e.module.host.avx:
        raise Unsupported(f"comparison predicate {imm:#x} needs AVX")
    _three(e, op, f"cmp{_suffix(op, op.ins[0])}", f"$${imm}")


# --- conversions ------------------------------------------------------------------------------------------------------

_X87_MEMORY = {F32: "s", F64: "l"}


def _sse_letter(type_: Type) -> str:
    return "s" if type_ is F32 else "d"


@lowers("f2f")
def _f2f(e: Emitter, op: Op) -> None:
    source, to = op.ins[0].type, op.outs[0].type
    if to is F80 and source is not F80:
        _x87_load(e, op, f"fld{_X87_MEMORY[source]}", LLVM_TYPE[source])
    elif source is F80 and to is not F80:
        _x87_store(e, op, f"fstp{_X87_MEMORY[to]}", LLVM_TYPE[to])
    elif source is to:
        e.alias(op.outs[0], e.value(op.ins[0]))
    else:
        name = f"cvts{_sse_letter(source)}2s{_sse_letter(to)}"
        e.alias(op.outs[0], _two(e, name, e.typed(op.ins[0]), LLVM_TYPE[to], scalar=True))


@lowers("i2f")
def _i2f(e: Emitter, op: Op) -> None:
    source, to = op.ins[0].type, op.outs[0].type
    if source not in (I32, I64):
        raise Unsupported(f"i2f of {source}")
    if to is F80:
        _x87_load(e, op, "fildl" if source is I32 else "fildll", LLVM_TYPE[source])
        return
    name = f"cvtsi2s{_sse_letter(to)}{'l' if source is I32 else 'q'}"
    text = f"vxorps $0, $0, $0; v{name} $1, $0, $0" if e.module.host.avx else f"xorps $0, $0; {name} $1, $0"
    e.set(op.outs[0], f'call {LLVM_TYPE[to]} asm sideeffect "{text}", "=&x,r"({e.typed(op.ins[0])})')


@lowers("f2i")
def _f2i(e: Emitter, op: Op) -> None:
    source, to = op.ins[0].type, op.outs[0].type
    rounding: Rounding = attr(op, "round")
    if to not in (I32, I64):
        raise Unsupported(f"f2i to {to}")
    if source is F80:
        name = "fisttp" if rounding is Rounding.ZERO else "fistp"
        _x87_store(e, op, name + ("l" if to is I32 else "ll"), LLVM_TYPE[to], rounding)
        return
    letter = _sse_letter(source)
    operand = e.typed(op.ins[0])
    if rounding not in (Rounding.DYN, Rounding.ZERO):
        imm = _round_imm(rounding, exact=True)
        operand = f"{LLVM_TYPE[source]} {_rounded(e, 's' + letter, operand, LLVM_TYPE[source], imm)}"
    name = f"{'v' if e.module.host.avx else ''}cvt{'' if rounding is Rounding.DYN else 't'}s{letter}2si"
    e.set(op.outs[0], f'call {LLVM_TYPE[to]} asm sideeffect "{name} $1, $0", "=r,x"({operand})')
