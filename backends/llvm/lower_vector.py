"""Vectors: `<2 x i64>` carries every V128, bitcast to its lanes where an op divides it.

Generic LLVM throughout, since instruction selection knows the SSE and NEON idioms; target intrinsics only where the
generic form is not recognised (shift by a register count, saturating narrow, table look-up).
"""

from backends.llvm.emitter import LLVM_TYPE, Emitter, attr, lowers
from tcg.ir.block import Const, Op, Operand
from tcg.ir.types import V128, Lane

_V = LLVM_TYPE[V128]


def vector_type(lane: Lane) -> str:
    scalar = {Lane.S: "float", Lane.DF: "double"}.get(lane, f"i{lane.width}")
    return f"<{lane.count} x {scalar}>"


def lanes(e: Emitter, operand: Operand, lane: Lane) -> str:
    """The operand's bits as lanes: a typed value."""
    kind = vector_type(lane)
    return f"{kind} {e.new(f'bitcast {e.typed(operand)} to {kind}')}"


def _out(e: Emitter, op: Op, kind: str, value: str) -> None:
    e.set(op.outs[0], f"bitcast {kind} {value} to {_V}")


def _bare(typed: str) -> str:
    """The value without its type (vector types hold blanks, names do not)."""
    return typed.rsplit(" ", 1)[1]


def splat(lane_type: str, count: int, value: object) -> str:
    return "<" + ", ".join(f"{lane_type} {value}" for _ in range(count)) + ">"


_BINARY = {"vadd": "add", "vsub": "sub", "vmul": "mul"}


@lowers(*_BINARY)
def _binary(e: Emitter, op: Op) -> None:
    lane: Lane = attr(op, "lane")
    a, b = (lanes(e, v, lane) for v in op.ins)
    _out(e, op, vector_type(lane), e.new(f"{_BINARY[op.name]} {a}, {_bare(b)}"))


@lowers("vmulhu", "vmulhs")
def _mulh(e: Emitter, op: Op) -> None:
    lane: Lane = attr(op, "lane")
    wide = f"<{lane.count} x i{2 * lane.width}>"
    extend = "zext" if op.name == "vmulhu" else "sext"
    x, y = (e.new(f"{extend} {lanes(e, v, lane)} to {wide}") for v in op.ins)
    product = e.new(f"mul {wide} {x}, {y}")
    high = e.new(f"lshr {wide} {product}, {splat(f'i{2 * lane.width}', lane.count, lane.width)}")
    _out(e, op, vector_type(lane), e.new(f"trunc {wide} {high} to {vector_type(lane)}"))


_INTRINSIC = {"vqaddu": "uadd.sat", "vqadds": "sadd.sat", "vqsubu": "usub.sat", "vqsubs": "ssub.sat"}
_INTRINSIC |= {"vminu": "umin", "vmaxu": "umax", "vmins": "smin", "vmaxs": "smax"}


@lowers(*_INTRINSIC)
def _intrinsic(e: Emitter, op: Op) -> None:
    lane: Lane = attr(op, "lane")
    kind = vector_type(lane)
    name = f"llvm.{_INTRINSIC[op.name]}.v{lane.count}i{lane.width}"
    function = e.module.intrinsic(name, kind, kind, kind)
    a, b = (lanes(e, v, lane) for v in op.ins)
    _out(e, op, kind, e.new(f"call {kind} {function}({a}, {b})"))


@lowers("vavgu")
def _average(e: Emitter, op: Op) -> None:
    lane: Lane = attr(op, "lane")
    wide_lane = f"i{2 * lane.width}"
    wide = f"<{lane.count} x {wide_lane}>"
    x, y = (e.new(f"zext {lanes(e, v, lane)} to {wide}") for v in op.ins)
    ones = splat(wide_lane, lane.count, 1)
    total = e.new(f"add {wide} {e.new(f'add {wide} {x}, {y}')}, {ones}")
    half = e.new(f"lshr {wide} {total}, {ones}")
    _out(e, op, vector_type(lane), e.new(f"trunc {wide} {half} to {vector_type(lane)}"))


@lowers("vcmpeq", "vcmpgts")
def _compare(e: Emitter, op: Op) -> None:
    lane: Lane = attr(op, "lane")
    a, b = (lanes(e, v, lane) for v in op.ins)
    bits = e.new(f"icmp {'eq' if op.name == 'vcmpeq' else 'sgt'} {a}, {_bare(b)}")
    kind = vector_type(lane)
    _out(e, op, kind, e.new(f"sext <{lane.count} x i1> {bits} to {kind}"))


@lowers("vabs")
def _abs(e: Emitter, op: Op) -> None:
    lane: Lane = attr(op, "lane")
    kind = vector_type(lane)
    function = e.module.intrinsic(f"llvm.abs.v{lane.count}i{lane.width}", kind, kind, "i1")
    _out(e, op, kind, e.new(f"call {kind} {function}({lanes(e, op.ins[0], lane)}, i1 false)"))


def _shuffle(e: Emitter, kind: str, a: str, b: str, mask: list[int]) -> str:
    indices = ", ".join(f"i32 {m}" for m in mask)
    return e.new(f"shufflevector {kind} {a}, {kind} {b}, <{len(mask)} x i32> <{indices}>")


@lowers("vziplo", "vziphi")
def _zip(e: Emitter, op: Op) -> None:
    lane: Lane = attr(op, "lane")
    half = lane.count // 2
    start = 0 if op.name == "vziplo" else half
    mask = [i + side for i in range(start, start + half) for side in (0, lane.count)]
    a, b = (_bare(lanes(e, v, lane)) for v in op.ins)
    kind = vector_type(lane)
    _out(e, op, kind, _shuffle(e, kind, a, b, mask))


_PACK = {
    ("vnarrows", Lane.H): "sse2.packsswb.128",
    ("vnarrows", Lane.W): "sse2.packssdw.128",
    ("vnarrowu", Lane.H): "sse2.packuswb.128",
    ("vnarrowu", Lane.W): "sse41.packusdw",
}


@lowers("vnarrows", "vnarrowu")
def _narrow(e: Emitter, op: Op) -> None:
    lane: Lane = attr(op, "lane")
    a, b = (lanes(e, v, lane) for v in op.ins)
    source, count, width = vector_type(lane), lane.count, lane.width // 2
    result = f"<{2 * count} x i{width}>"
    pack = _PACK.get((op.name, lane))
    if pack and (pack.startswith("sse2") or "sse4.1" in e.module.host.on):
        function = e.module.intrinsic(f"llvm.x86.{pack}", result, source, source)
        _out(e, op, result, e.new(f"call {result} {function}({a}, {b})"))
        return
    low, high = (-(1 << width - 1), (1 << width - 1) - 1) if op.name == "vnarrows" else (0, (1 << width) - 1)
    both = f"<{2 * count} x i{lane.width}>"
    value = _shuffle(e, source, _bare(a), _bare(b), list(range(2 * count)))
    for name, bound in (("smax", low), ("smin", high)):
        function = e.module.intrinsic(f"llvm.{name}.v{2 * count}i{lane.width}", both, both, both)
        value = e.new(f"call {both} {function}({both} {value}, {both} {splat(f'i{lane.width}', 2 * count, bound)})")
    _out(e, op, result, e.new(f"trunc {both} {value} to {result}"))


# --- shifts by one count ----------------------------------------------------------------------------------------------

_SHIFT = {"vshl": ("shl", "psll"), "vshr": ("lshr", "psrl"), "vsar": ("ashr", "psra")}
_HOST_SHIFT_LANES = {Lane.H: "w", Lane.W: "d", Lane.D: "q"}


@lowers("vshl", "vshr", "vsar")
def _shift(e: Emitter, op: Op) -> None:
    lane: Lane = attr(op, "lane")
    a, count = lanes(e, op.ins[0], lane), op.ins[1]
    generic, host = _SHIFT[op.name]
    kind, lane_type = vector_type(lane), f"i{lane.width}"
    if isinstance(count, Const):
        if count.value >= lane.width and op.name != "vsar":
            _out(e, op, kind, "zeroinitializer")
            return
        known = min(count.value, lane.width - 1)
        _out(e, op, kind, e.new(f"{generic} {a}, {splat(lane_type, lane.count, known)}"))
        return
    if lane in _HOST_SHIFT_LANES and (op.name, lane) != ("vsar", Lane.D):
        # the host's own rule for large counts is the op's
        function = e.module.intrinsic(f"llvm.x86.sse2.{host}.{_HOST_SHIFT_LANES[lane]}", kind, kind, kind)
        pair = e.new(f"insertelement <2 x i64> zeroinitializer, {e.typed(count)}, i64 0")
        by = e.new(f"bitcast <2 x i64> {pair} to {kind}")
        _out(e, op, kind, e.new(f"call {kind} {function}({a}, {kind} {by})"))
        return
    umin = e.module.intrinsic("llvm.umin.i64", "i64", "i64", "i64")
    amount = e.new(f"call i64 {umin}({e.typed(count)}, i64 {lane.width - 1})")
    narrow = amount if lane.width == 64 else e.new(f"trunc i64 {amount} to {lane_type}")
    shifted = e.new(f"{generic} {a}, {_bare(_dup(e, lane, narrow))}")
    if op.name != "vsar":
        fits = e.new(f"icmp ult {e.typed(count)}, {lane.width}")
        shifted = e.new(f"select i1 {fits}, {kind} {shifted}, {kind} zeroinitializer")
    _out(e, op, kind, shifted)


# --- moving lanes -----------------------------------------------------------------------------------------------------


def _dup(e: Emitter, lane: Lane, value: str) -> str:
    kind = vector_type(lane)
    one = e.new(f"insertelement {kind} poison, i{lane.width} {value}, i64 0")
    return f"{kind} {_shuffle(e, kind, one, 'poison', [0] * lane.count)}"


@lowers("vdup")
def _vdup(e: Emitter, op: Op) -> None:
    lane: Lane = attr(op, "lane")
    _out(e, op, vector_type(lane), _bare(_dup(e, lane, e.value(op.ins[0]))))


@lowers("vext")
def _vext(e: Emitter, op: Op) -> None:
    e.set(op.outs[0], f"extractelement {lanes(e, op.ins[0], attr(op, 'lane'))}, i64 {attr(op, 'index')}")


@lowers("vins")
def _vins(e: Emitter, op: Op) -> None:
    lane: Lane = attr(op, "lane")
    value = f"i{lane.width} {e.value(op.ins[1])}"
    if op.ins[1] in e.float_bits:  # not by way of an integer register
        lane = Lane.S if lane is Lane.W else Lane.DF
        value = e.typed(e.float_bits[op.ins[1]])
    kind = vector_type(lane)
    _out(e, op, kind, e.new(f"insertelement {lanes(e, op.ins[0], lane)}, {value}, i64 {attr(op, 'index')}"))


@lowers("vshuf")
def _vshuf(e: Emitter, op: Op) -> None:
    mask = list(attr(op, "mask"))
    kind = vector_type(Lane.B)
    a, b = (_bare(lanes(e, v, Lane.B)) for v in op.ins)
    if 32 not in mask:
        _out(e, op, kind, _shuffle(e, kind, a, b, mask))
        return
    picked = a
    if any(16 <= m < 32 for m in mask):
        picked = _shuffle(e, kind, a, b, [m if m < 32 else 0 for m in mask])
        mask = [i if m < 32 else 32 for i, m in enumerate(mask)]
    _out(e, op, kind, _shuffle(e, kind, picked, "zeroinitializer", [m if m < 16 else 16 for m in mask]))


@lowers("vtbl")
def _vtbl(e: Emitter, op: Op) -> None:
    kind = vector_type(Lane.B)
    function = e.module.intrinsic("llvm.x86.ssse3.pshuf.b.128", kind, kind, kind)
    a, b = (lanes(e, v, Lane.B) for v in op.ins)
    _out(e, op, kind, e.new(f"call {kind} {function}({a}, {b})"))


@lowers("vwidens", "vwidenu")
def _widen(e: Emitter, op: Op) -> None:
    lane: Lane = attr(op, "lane")
    to: Lane = attr(op, "to")
    kind = vector_type(lane)
    low = _shuffle(e, kind, _bare(lanes(e, op.ins[0], lane)), "poison", list(range(to.count)))
    wide = vector_type(to)
    extend = "sext" if op.name == "vwidens" else "zext"
    _out(e, op, wide, e.new(f"{extend} <{to.count} x i{lane.width}> {low} to {wide}"))


@lowers("vmovmsk")
def _movmsk(e: Emitter, op: Op) -> None:
    lane: Lane = Lane.W if attr(op, "lane") is Lane.S else Lane.D if attr(op, "lane") is Lane.DF else attr(op, "lane")
    bits = e.new(f"icmp slt {lanes(e, op.ins[0], lane)}, zeroinitializer")
    mask = e.new(f"bitcast <{lane.count} x i1> {bits} to i{lane.count}")
    e.set(op.outs[0], f"zext i{lane.count} {mask} to i32")
