"""Soft float against the host CPU: thousands of special and random patterns an operation, results and flags."""

import random
from collections.abc import Callable

import pytest
from hostfpu import IS_X86_64, Answer, Case, HostFpu

from tcg.ir import softfloat
from tcg.ir.integers import signed
from tcg.ir.softfloat import FORMATS, Format, FpFlag, FpState
from tcg.ir.types import F32, F64, F80, FCond, Rounding

pytestmark = pytest.mark.skipif(not IS_X86_64, reason="the reference is an x86-64 host's FPU")

SEED = 754
COUNT = 4000
SINGLE, DOUBLE, EXTENDED = FORMATS[F32], FORMATS[F64], FORMATS[F80]
FLAGS = 0x3F
MXCSR_MASKED = 0x1F80
DAZ, FTZ = 1 << 6, 1 << 15
RC = {Rounding.NEAREST: 0, Rounding.DOWN: 1, Rounding.UP: 2, Rounding.ZERO: 3}
PC = {24: 0, 53: 2, 64: 3}


@pytest.fixture(scope="module")
def host() -> HostFpu:
    return HostFpu()


def pattern(rng: random.Random, fmt: Format) -> int:
    """Specials, denormals, values near the ends, short significands (ties), integers and uniform bits."""
    sign, top, field = rng.getrandbits(1), (1 << fmt.exponent) - 1, fmt.field
    leading = 1 << (fmt.precision - 1) if fmt.explicit else 0
    choice = rng.randrange(10)
    if choice == 0:
        return rng.choice((fmt.zero(sign), fmt.infinity(sign), fmt.default_nan(), fmt.encode(sign, top, leading | 1)))
    if choice == 1:
        return fmt.encode(sign, top, leading | rng.getrandbits(fmt.precision - 1))
    if choice == 2:
        return fmt.encode(sign, 0, rng.getrandbits(rng.randrange(1, fmt.precision)))
    if choice == 3:
        return rng.getrandbits(fmt.width)
    fraction = rng.getrandbits(fmt.precision - 1)
    if choice <= 5:
        keep = rng.randrange(fmt.precision)
        fraction = fraction >> keep << keep
    if choice == 6:
        fraction = rng.choice((0, 1, (1 << (fmt.precision - 1)) - 1))
    spread = rng.choice((3, fmt.precision + 3, fmt.emax))
    centre = rng.choice((fmt.emax, fmt.emax, fmt.emax, spread, fmt.emax // 2, 3 * fmt.emax // 2))
    biased = min(max(centre + rng.randrange(-spread, spread + 1), 1), top - 1)
    if choice == 7:
        biased = rng.choice((1, 2, top - 1, top - 2))
    return fmt.encode(sign, biased, leading | fraction) & ((1 << (fmt.width if field else 0)) - 1)


def pair(rng: random.Random, fmt: Format) -> tuple[int, int]:
    """Independent, close to each other (cancellation, ties), or with exponents that meet at underflow or overflow."""
    a = pattern(rng, fmt)
    choice = rng.randrange(4)
    if choice == 0:
        return a, a ^ rng.choice((0, 1, 1 << (fmt.width - 1), rng.getrandbits(4)))
    if choice == 1:
        biased = a >> fmt.field & ((1 << fmt.exponent) - 1)
        other = fmt.emax - biased + rng.choice((0, 2 * fmt.emax)) + rng.randrange(-fmt.precision, fmt.precision)
        leading = 1 << (fmt.precision - 1)
        if 0 < other < (1 << fmt.exponent) - 1:
            return a, fmt.encode(rng.getrandbits(1), other, leading | rng.getrandbits(fmt.precision - 1))
    return a, pattern(rng, fmt)


def simd_control(rng: random.Random) -> tuple[FpState, int]:
    rounding = rng.choice(list(RC))
    state = FpState(rounding, rng.random() < 0.25, rng.random() < 0.25)
    return state, MXCSR_MASKED | RC[rounding] << 13 | DAZ * state.daz | FTZ * state.ftz


def x87_control(rng: random.Random) -> tuple[FpState, int]:
    rounding, precision = rng.choice(list(RC)), rng.choice((64, 64, 53, 24))
    return FpState(rounding, precision=precision), 0x7F | PC[precision] << 8 | RC[rounding] << 10


def check(
    host: HostFpu,
    name: str,
    operands: Callable[[random.Random], tuple[int, int]],
    ours: Callable[[int, int, FpState], int],
    result_width: int,
    *,
    x87: bool = False,
    mask: int | None = None,
) -> None:
    """Compare result bits (`mask` of them) and the six flags, for x87 C1 too."""
    rng = random.Random(f"{SEED}{name}")
    print("seed", f"{SEED}{name}")
    cases, states = [], []
    for _ in range(COUNT):
        a, b = operands(rng)
        state, control = x87_control(rng) if x87 else simd_control(rng)
        cases.append(Case(a, b, control))
        states.append(state)
    wanted_flags = FLAGS | (FpFlag.ROUNDED_UP if x87 else 0)
    mask = (1 << result_width) - 1 if mask is None else mask
    wrong = []
    for case, state, answer in zip(cases, states, host.run(name, cases), strict=True):
        result = ours(case.a, case.b, state)
        if (result & mask, state.flags) != (answer.result & mask, answer.status & wanted_flags):
            wrong.append(_report(case, state, result & mask, answer, mask, wanted_flags))
    assert not wrong, f"{len(wrong)} of {COUNT} differ:\n" + "\n".join(wrong[:10])


def _report(case: Case, state: FpState, result: int, answer: Answer, mask: int, flags: int) -> str:
    return (
        f"a={case.a:#x} b={case.b:#x} {state.rounding.name} daz={state.daz} ftz={state.ftz} pc={state.precision}: "
        f"ours {result:#x} {FpFlag(state.flags)!r}, host {answer.result & mask:#x} {FpFlag(answer.status & flags)!r}"
    )


def _pairs(fmt: Format) -> Callable[[random.Random], tuple[int, int]]:
    return lambda rng: pair(rng, fmt)


def _ones(fmt: Format) -> Callable[[random.Random], tuple[int, int]]:
    return lambda rng: (pattern(rng, fmt), 0)


SUFFIX = {"ss": SINGLE, "sd": DOUBLE}
ARITHMETIC = {"add": softfloat.add, "sub": softfloat.sub, "mul": softfloat.mul, "div": softfloat.div}
CHOICE = {"min": softfloat.minimum, "max": softfloat.maximum}


@pytest.mark.parametrize("suffix", SUFFIX)
@pytest.mark.parametrize("name", [*ARITHMETIC, *CHOICE])
def test_simd_arithmetic(host: HostFpu, name: str, suffix: str) -> None:
    fmt = SUFFIX[suffix]
    function = {**ARITHMETIC, **CHOICE}[name]
    check(host, name + suffix, _pairs(fmt), lambda a, b, state: function(fmt, a, b, state), fmt.width)


@pytest.mark.parametrize("suffix", SUFFIX)
def test_simd_square_root(host: HostFpu, suffix: str) -> None:
    fmt = SUFFIX[suffix]
    check(host, "sqrt" + suffix, _ones(fmt), lambda a, b, state: softfloat.sqrt(fmt, a, state), fmt.width)


def test_simd_conversion_between_formats(host: HostFpu) -> None:
    check(host, "cvtss2sd", _ones(SINGLE), lambda a, b, state: softfloat.to_format(SINGLE, DOUBLE, a, state), 64)
    check(host, "cvtsd2ss", _ones(DOUBLE), lambda a, b, state: softfloat.to_format(DOUBLE, SINGLE, a, state), 32)


@pytest.mark.parametrize("suffix", SUFFIX)
@pytest.mark.parametrize("width", [32, 64])
def test_simd_to_integer(host: HostFpu, suffix: str, width: int) -> None:
    fmt = SUFFIX[suffix]
    check(
        host,
        f"cvt{suffix}2si{width}",
        _ones(fmt),
        lambda a, b, state: softfloat.to_int(fmt, a, width, state, state.rounding),
        width,
    )
    check(
        host,
        f"cvtt{suffix}2si{width}",
        _ones(fmt),
        lambda a, b, state: softfloat.to_int(fmt, a, width, state, Rounding.ZERO),
        width,
    )


def _integers(width: int) -> Callable[[random.Random], tuple[int, int]]:
    def operands(rng: random.Random) -> tuple[int, int]:
        value = rng.getrandbits(width) >> rng.randrange(width)
        return (value if rng.random() < 0.5 else -value & ((1 << width) - 1)), 0

    return operands


@pytest.mark.parametrize("suffix", SUFFIX)
@pytest.mark.parametrize("width", [32, 64])
def test_simd_from_integer(host: HostFpu, suffix: str, width: int) -> None:
    fmt = SUFFIX[suffix]
    check(
        host,
        f"cvtsi2{suffix}{width}",
        _integers(width),
        lambda a, b, state: softfloat.from_int(fmt, signed(a, width), state),
        fmt.width,
    )


@pytest.mark.parametrize("suffix", SUFFIX)
@pytest.mark.parametrize("imm", [0, 1, 2, 3, 4, 8, 12])
def test_simd_round_to_integral(host: HostFpu, suffix: str, imm: int) -> None:
    fmt = SUFFIX[suffix]

    def ours(a: int, b: int, state: FpState) -> int:
        rounding = state.rounding if imm & 4 else Rounding(imm & 3)
        return softfloat.round_int(fmt, a, state, rounding, exact=not imm & 8)

    check(host, f"round{suffix}{imm}", _ones(fmt), ours, fmt.width)


def _rflags(order: int | None) -> int:
    """ZF, PF, CF as COMISS and FCOMI set them."""
    return {None: 0x45, -1: 1, 0: 0x40, 1: 0}[order]


@pytest.mark.parametrize("suffix", SUFFIX)
@pytest.mark.parametrize("name", ["comi", "ucomi"])
def test_simd_compare(host: HostFpu, name: str, suffix: str) -> None:
    fmt = SUFFIX[suffix]

    def ours(a: int, b: int, state: FpState) -> int:
        return _rflags(softfloat.compare(fmt, a, b, state, signal=name == "comi"))

    check(host, name + suffix, _pairs(fmt), ours, 16, mask=0x45)


@pytest.mark.parametrize("suffix", SUFFIX)
@pytest.mark.parametrize("imm", [0, 1, 2, 3])
def test_simd_predicates(host: HostFpu, suffix: str, imm: int) -> None:
    """CMPSS predicates: 0 EQ quiet, 1 LT and 2 LE signalling, 3 UNORD quiet."""
    fmt = SUFFIX[suffix]
    fcond = (FCond.EQ, FCond.LT, FCond.LE, FCond.UN)[imm]

    def ours(a: int, b: int, state: FpState) -> int:
        return -softfloat.test(fmt, fcond, a, b, state, signal=imm in (1, 2))

    check(host, f"cmp{suffix}{imm}", _pairs(fmt), ours, fmt.width)


@pytest.mark.parametrize("name", ARITHMETIC)
def test_x87_arithmetic(host: HostFpu, name: str) -> None:
    check(
        host,
        "f" + name,
        _pairs(EXTENDED),
        lambda a, b, state: ARITHMETIC[name](EXTENDED, a, b, state),
        80,
        x87=True,
    )


def test_x87_square_root_and_round(host: HostFpu) -> None:
    check(host, "fsqrt", _ones(EXTENDED), lambda a, b, state: softfloat.sqrt(EXTENDED, a, state), 80, x87=True)
    check(
        host,
        "frndint",
        _ones(EXTENDED),
        lambda a, b, state: softfloat.round_int(EXTENDED, a, state, state.rounding, exact=True),
        80,
        x87=True,
    )


@pytest.mark.parametrize(("name", "source"), [("fld32", SINGLE), ("fld64", DOUBLE)])
def test_x87_load(host: HostFpu, name: str, source: Format) -> None:
    check(host, name, _ones(source), lambda a, b, state: softfloat.to_format(source, EXTENDED, a, state), 80, x87=True)


@pytest.mark.parametrize(("name", "to"), [("fst32", SINGLE), ("fst64", DOUBLE)])
def test_x87_store(host: HostFpu, name: str, to: Format) -> None:
    def operands(rng: random.Random) -> tuple[int, int]:
        """Half of them around the narrower format's range."""
        if rng.random() < 0.5:
            return pattern(rng, EXTENDED), 0
        biased = EXTENDED.emax + rng.choice((to.emin, to.emax, 0)) + rng.randrange(-to.precision - 2, to.precision)
        fraction = rng.getrandbits(63) >> (keep := rng.randrange(63)) << keep
        return EXTENDED.encode(rng.getrandbits(1), biased, 1 << 63 | fraction), 0

    check(host, name, operands, lambda a, b, state: softfloat.to_format(EXTENDED, to, a, state), to.width, x87=True)


@pytest.mark.parametrize("width", [32, 64])
def test_x87_integers(host: HostFpu, width: int) -> None:
    check(
        host,
        f"fild{width}",
        _integers(width),
        lambda a, b, state: softfloat.from_int(EXTENDED, signed(a, width), state),
        80,
        x87=True,
    )
    check(
        host,
        f"fist{width}",
        _ones(EXTENDED),
        lambda a, b, state: softfloat.to_int(EXTENDED, a, width, state, state.rounding),
        width,
        x87=True,
    )


@pytest.mark.parametrize("name", ["fcomi", "fucomi"])
def test_x87_compare(host: HostFpu, name: str) -> None:
    def ours(a: int, b: int, state: FpState) -> int:
        return _rflags(softfloat.compare(EXTENDED, a, b, state, signal=name == "fcomi"))

    check(host, name, _pairs(EXTENDED), ours, 16, x87=True, mask=0x45)


def test_arm_nan_rules() -> None:
    """Arm ARM, FPProcessNaNs: the first signalling NaN, else the first quiet one; the default NaN is positive."""
    quiet, signalling = 0x7FC00001, 0x7FA00002
    state = FpState()
    assert softfloat.add(SINGLE, quiet, signalling, state, "arm") == 0x7FE00002
    assert state.flags == FpFlag.INVALID
    assert softfloat.add(SINGLE, 0x3F800000, quiet, FpState(), "arm") == quiet
    assert softfloat.sub(SINGLE, SINGLE.infinity(0), SINGLE.infinity(0), FpState(), "arm") == 0x7FC00000
