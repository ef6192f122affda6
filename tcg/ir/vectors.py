"""What the pure vector ops mean: op name -> function of (op, input values); a V128 is a 128-bit non-negative int."""

from collections.abc import Callable, Iterable

from tcg.ir.block import Op
from tcg.ir.integers import Meaning, signed
from tcg.ir.types import Lane


def lanes(value: int, width: int) -> list[int]:
    """The lanes of a V128 as non-negative ints, lane 0 (the lowest bits) first."""
    mask = (1 << width) - 1
    return [value >> at & mask for at in range(0, 128, width)]


def join(values: Iterable[int], width: int) -> int:
    """The V128 of these lanes; each is masked to `width` bits."""
    mask = (1 << width) - 1
    return sum((value & mask) << i * width for i, value in enumerate(values))


def _lane_wise(compute: Callable[[int, int, int], int], *, sign: bool = False) -> Meaning:
    """compute(a, b, width) on each pair of lanes, read as signed ones when `sign`."""

    def meaning(op: Op, a: int, b: int) -> int:
        width = op.attrs["lane"].width
        pairs = zip(lanes(a, width), lanes(b, width), strict=True)
        if sign:
            return join((compute(signed(x, width), signed(y, width), width) for x, y in pairs), width)
        return join((compute(x, y, width) for x, y in pairs), width)

    return meaning


def clamp_signed(value: int, width: int) -> int:
    top = 1 << (width - 1)
    return max(-top, min(top - 1, value))


def clamp_unsigned(value: int, width: int) -> int:
    return max(0, min((1 << width) - 1, value))


def _zip(half: int) -> Meaning:
    def meaning(op: Op, a: int, b: int) -> int:
        lane: Lane = op.attrs["lane"]
        part = slice(half * lane.count // 2, (half + 1) * lane.count // 2)
        pairs = zip(lanes(a, lane.width)[part], lanes(b, lane.width)[part], strict=True)
        return join((value for pair in pairs for value in pair), lane.width)

    return meaning


def _narrow(clamp: Callable[[int, int], int]) -> Meaning:
    def meaning(op: Op, a: int, b: int) -> int:
        width = op.attrs["lane"].width
        return join((clamp(signed(x, width), width // 2) for x in lanes(a, width) + lanes(b, width)), width // 2)

    return meaning


def _shift(compute: Callable[[int, int, int], int]) -> Meaning:
    def meaning(op: Op, a: int, count: int) -> int:
        width = op.attrs["lane"].width
        return join((compute(x, min(count, width), width) for x in lanes(a, width)), width)

    return meaning


def _vabs(op: Op, a: int) -> int:
    width = op.attrs["lane"].width
    return join((abs(signed(x, width)) for x in lanes(a, width)), width)


def _vshuf(op: Op, a: int, b: int) -> int:
    picked = [*lanes(a, 8), *lanes(b, 8), 0]
    return join((picked[i] for i in op.attrs["mask"]), 8)


def _vtbl(op: Op, a: int, indices: int) -> int:
    table = lanes(a, 8)
    return join((0 if i & 0x80 else table[i & 15] for i in lanes(indices, 8)), 8)


def _vdup(op: Op, a: int) -> int:
    lane: Lane = op.attrs["lane"]
    return join([a] * lane.count, lane.width)


def _vext(op: Op, a: int) -> int:
    lane: Lane = op.attrs["lane"]
    index: int = op.attrs["index"]
    return lanes(a, lane.width)[index]


def _vins(op: Op, a: int, value: int) -> int:
    lane: Lane = op.attrs["lane"]
    values = lanes(a, lane.width)
    values[op.attrs["index"]] = value
    return join(values, lane.width)


def _vwidenu(op: Op, a: int) -> int:
    lane, to = op.attrs["lane"], op.attrs["to"]
    return join(lanes(a, lane.width)[: to.count], to.width)


def _vwidens(op: Op, a: int) -> int:
    lane, to = op.attrs["lane"], op.attrs["to"]
    return join((signed(x, lane.width) for x in lanes(a, lane.width)[: to.count]), to.width)


def _vmovmsk(op: Op, a: int) -> int:
    width = op.attrs["lane"].width
    return sum((x >> (width - 1)) << i for i, x in enumerate(lanes(a, width)))


VECTOR_MEANINGS: dict[str, Meaning] = {
    "vadd": _lane_wise(lambda a, b, width: a + b),
    "vsub": _lane_wise(lambda a, b, width: a - b),
    "vmul": _lane_wise(lambda a, b, width: a * b),
    "vmulhu": _lane_wise(lambda a, b, width: a * b >> width),
    "vmulhs": _lane_wise(lambda a, b, width: a * b >> width, sign=True),
    "vqaddu": _lane_wise(lambda a, b, width: clamp_unsigned(a + b, width)),
    "vqadds": _lane_wise(lambda a, b, width: clamp_signed(a + b, width), sign=True),
    "vqsubu": _lane_wise(lambda a, b, width: clamp_unsigned(a - b, width)),
    "vqsubs": _lane_wise(lambda a, b, width: clamp_signed(a - b, width), sign=True),
    "vminu": _lane_wise(lambda a, b, width: min(a, b)),
    "vmaxu": _lane_wise(lambda a, b, width: max(a, b)),
    "vmins": _lane_wise(lambda a, b, width: min(a, b), sign=True),
    "vmaxs": _lane_wise(lambda a, b, width: max(a, b), sign=True),
    "vavgu": _lane_wise(lambda a, b, width: (a + b + 1) >> 1),
    "vcmpeq": _lane_wise(lambda a, b, width: -(a == b)),
    "vcmpgts": _lane_wise(lambda a, b, width: -(a > b), sign=True),
    "vziplo": _zip(0),
    "vziphi": _zip(1),
    "vnarrows": _narrow(clamp_signed),
    "vnarrowu": _narrow(clamp_unsigned),
    "vabs": _vabs,
    "vshl": _shift(lambda x, count, width: x << count),
    "vshr": _shift(lambda x, count, width: x >> count),
    "vsar": _shift(lambda x, count, width: signed(x, width) >> count),
    "vshuf": _vshuf,
    "vtbl": _vtbl,
    "vdup": _vdup,
    "vext": _vext,
    "vins": _vins,
    "vwidens": _vwidens,
    "vwidenu": _vwidenu,
    "vmovmsk": _vmovmsk,
}
