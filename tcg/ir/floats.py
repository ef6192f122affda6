"""What the floating-point ops mean, over `softfloat`: op name -> function of (op, fp access, env, input values).

binary32, binary64 and vector ops run under the guest's SIMD control (x86: MXCSR), anything that touches an 80-bit value
under its x87 control. Where they live is the guest's matter: it hands in an FpAccess.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from tcg.ir import softfloat
from tcg.ir.block import Op
from tcg.ir.integers import signed
from tcg.ir.softfloat import FORMATS, Format, FpState
from tcg.ir.types import F32, F64, F80, V128, FCond, Lane, Rounding
from tcg.ir.vectors import join, lanes


class FpAccess(Protocol):
    """The guest's FP control registers. env: the EnvAccess of the run; x87: which of the two units."""

    def control(self, env: Any, *, x87: bool) -> FpState:
        """The control in force, as a fresh FpState whose flags are 0."""

    def accumulate(self, env: Any, flags: int, *, x87: bool) -> None:
        """OR FpFlag bits into the sticky flags."""


@dataclass(slots=True)
class FpRegisters:
    """An FpAccess of its own, outside env: for tests and guests without FP control."""

    simd: FpState = field(default_factory=FpState)
    x87: FpState = field(default_factory=FpState)

    def control(self, env: Any, *, x87: bool) -> FpState:
        unit = self.x87 if x87 else self.simd
        return FpState(unit.rounding, unit.daz, unit.ftz, unit.precision)

    def accumulate(self, env: Any, flags: int, *, x87: bool) -> None:
        unit = self.x87 if x87 else self.simd
        unit.flags |= flags


Compute = Callable[..., int]
_LANE_FORMAT: dict[Lane, Format] = {Lane.S: FORMATS[F32], Lane.DF: FORMATS[F64]}


def _rounding(op: Op, state: FpState) -> Rounding:
    wanted: Rounding = op.attrs["round"]
    return state.rounding if wanted is Rounding.DYN else wanted


def _scalar_or_lanes(compute: Compute) -> Compute:
    """compute(op, state, format, *values) -> bits, on a scalar or on each lane; flags accumulate over the lanes."""

    def meaning(op: Op, fp: FpAccess, env: Any, *values: int) -> int:
        type_ = op.ins[0].type
        x87 = type_ is F80
        state = fp.control(env, x87=x87)
        if type_ is V128:
            lane: Lane = op.attrs["lane"]
            rows = zip(*(lanes(value, lane.width) for value in values), strict=True)
            result = join((compute(op, state, _LANE_FORMAT[lane], *row) for row in rows), lane.width)
        else:
            result = compute(op, state, FORMATS[type_], *values)
        fp.accumulate(env, state.flags, x87=x87)
        return result

    return meaning


def _convert(compute: Callable[[Op, FpState, int], int]) -> Compute:
    """compute(op, state, value) on the x87 unit when either side is 80 bits wide."""

    def meaning(op: Op, fp: FpAccess, env: Any, value: int) -> int:
        x87 = F80 in (op.ins[0].type, op.outs[0].type)
        state = fp.control(env, x87=x87)
        result = compute(op, state, value)
        fp.accumulate(env, state.flags, x87=x87)
        return result

    return meaning


def _arithmetic(function: Callable[[Format, int, int, FpState, str], int]) -> Compute:
    return _scalar_or_lanes(lambda op, state, fmt, a, b: function(fmt, a, b, state, op.attrs["nan"]))


def _test(op: Op, state: FpState, fmt: Format, a: int, b: int) -> int:
    fcond: FCond = op.attrs["fcond"]
    return int(softfloat.test(fmt, fcond, a, b, state, signal=op.attrs["signal"]))


FLOAT_MEANINGS: dict[str, Compute] = {
    "fadd": _arithmetic(softfloat.add),
    "fsub": _arithmetic(softfloat.sub),
    "fmul": _arithmetic(softfloat.mul),
    "fdiv": _arithmetic(softfloat.div),
    "fmin": _scalar_or_lanes(lambda op, state, fmt, a, b: softfloat.minimum(fmt, a, b, state)),
    "fmax": _scalar_or_lanes(lambda op, state, fmt, a, b: softfloat.maximum(fmt, a, b, state)),
    "fsqrt": _scalar_or_lanes(lambda op, state, fmt, a: softfloat.sqrt(fmt, a, state, op.attrs["nan"])),
    "fround": _scalar_or_lanes(
        lambda op, state, fmt, a: softfloat.round_int(fmt, a, state, _rounding(op, state), exact=op.attrs["exact"])
    ),
    "fcmp": _scalar_or_lanes(_test),
    "vfcmp": _scalar_or_lanes(lambda op, state, fmt, a, b: -_test(op, state, fmt, a, b)),
    "f2f": _convert(
        lambda op, state, a: softfloat.to_format(FORMATS[op.ins[0].type], FORMATS[op.outs[0].type], a, state)
    ),
    "i2f": _convert(
        lambda op, state, a: softfloat.from_int(FORMATS[op.outs[0].type], signed(a, op.ins[0].type.width), state)
    ),
    "f2i": _convert(
        lambda op, state, a: softfloat.to_int(
            FORMATS[op.ins[0].type], a, op.outs[0].type.width, state, _rounding(op, state)
        )
    ),
}
