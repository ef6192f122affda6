"""Exact IEEE 754-2019 arithmetic on Python ints for binary32, binary64 and x87's 80-bit double extended format.

A finite number is (sign, m, e): (-1)^sign * m * 2^e with an unbounded int m, so every operation is exact (quotient and
root keep a sticky lowest bit) and one function, `round_pack`, rounds. x86 behaviour throughout (SDM vol. 1, 4.8, 4.9,
8, 11.5): tininess after rounding, DAZ and FTZ, exception precedence, NaN rules; `nan="arm"` selects Arm's NaN rules.
"""

from dataclasses import dataclass
from enum import Enum, IntFlag
from math import isqrt

from tcg.ir.types import F32, F64, F80, FCond, Rounding, Type


class FpFlag(IntFlag):
    """Sticky exception flags, in x86's bit order; ROUNDED_UP is x87's C1 (the result's magnitude was increased)."""

    INVALID = 1
    DENORMAL = 2
    DIVZERO = 4
    OVERFLOW = 8
    UNDERFLOW = 16
    INEXACT = 32
    ROUNDED_UP = 1 << 9


@dataclass(slots=True)
class FpState:
    """FP control and the flags that operations accumulate.

    daz, ftz: binary32 and binary64 only. precision: significand bits (24, 53, 64) that 80-bit results are rounded to.
    """

    rounding: Rounding = Rounding.NEAREST
    daz: bool = False
    ftz: bool = False
    precision: int = 64
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Format:
    """An encoding: sign, `exponent` bits, `precision` significand bits, the first one implied unless `explicit`."""

    width: int
    exponent: int
    precision: int
    explicit: bool = False

    @property
    def emax(self) -> int:
        return (1 << (self.exponent - 1)) - 1

    @property
    def emin(self) -> int:
        return 1 - self.emax

    @property
    def field(self) -> int:
        """Bits of the significand that are stored."""
        return self.precision if self.explicit else self.precision - 1

    @property
    def quiet(self) -> int:
        """The bit that tells a quiet NaN from a signalling one."""
        return 1 << (self.precision - 2)

    def encode(self, sign: int, biased: int, significand: int) -> int:
        """significand with its leading bit, which is dropped when implied."""
        stored = significand & ((1 << self.field) - 1)
        return (sign << self.exponent | biased) << self.field | stored

    def infinity(self, sign: int) -> int:
        return self.encode(sign, (1 << self.exponent) - 1, 1 << (self.precision - 1))

    def zero(self, sign: int) -> int:
        return sign << (self.width - 1)

    def default_nan(self, nan: str = "x86") -> int:
        """x86's "real indefinite" is the negative quiet NaN without payload, Arm's default NaN the positive one."""
        return self.encode(int(nan == "x86"), (1 << self.exponent) - 1, 3 << (self.precision - 2))


FORMATS: dict[Type, Format] = {F32: Format(32, 8, 24), F64: Format(64, 11, 53), F80: Format(80, 15, 64, explicit=True)}


class Kind(Enum):
    ZERO = 0
    FINITE = 1
    INFINITE = 2
    QUIET = 3
    SIGNALLING = 4
    UNSUPPORTED = 5  # 80-bit unnormals, pseudo-infinities and pseudo-NaNs: an invalid operand


@dataclass(frozen=True, slots=True)
class Number:
    """An operand taken apart; m and e only when FINITE."""

    kind: Kind
    sign: int
    bits: int
    m: int = 0
    e: int = 0
    denormal: bool = False

    @property
    def is_nan(self) -> bool:
        return self.kind in (Kind.QUIET, Kind.SIGNALLING)


def unpack(fmt: Format, bits: int, *, daz: bool = False) -> Number:
    """daz: a denormal is a zero of its sign (never in the 80-bit format)."""
    sign = bits >> (fmt.width - 1)
    biased = bits >> fmt.field & ((1 << fmt.exponent) - 1)
    stored = bits & ((1 << fmt.field) - 1)
    leading = 1 << (fmt.precision - 1)
    fraction = stored & (leading - 1)
    top = (1 << fmt.exponent) - 1
    if fmt.explicit and biased and not stored & leading:
        return Number(Kind.UNSUPPORTED, sign, bits)
    if biased == top:
        if not fraction:
            return Number(Kind.INFINITE, sign, bits)
        return Number(Kind.QUIET if fraction & fmt.quiet else Kind.SIGNALLING, sign, bits)
    if biased:
        return Number(Kind.FINITE, sign, bits, fraction | leading, biased - fmt.emax - fmt.precision + 1)
    if not stored or (daz and not fmt.explicit):
        return Number(Kind.ZERO, sign, fmt.zero(sign))
    return Number(Kind.FINITE, sign, bits, stored, fmt.emin - fmt.precision + 1, denormal=True)


def _round_at(m: int, e: int, lsb: int, sign: int, rounding: Rounding) -> tuple[int, bool, bool]:
    """m * 2^e as a multiple q of 2^lsb: (q, inexact, magnitude increased)."""
    if e >= lsb:
        return m << (e - lsb), False, False
    shift = lsb - e
    q, rest = m >> shift, m & ((1 << shift) - 1)
    if not rest:
        return q, False, False
    if rounding is Rounding.NEAREST:
        half = 1 << (shift - 1)
        up = rest > half or (rest == half and q & 1 == 1)
    else:
        up = rounding is (Rounding.DOWN if sign else Rounding.UP)
    return q + up, True, up


def round_pack(fmt: Format, sign: int, m: int, e: int, fp: FpState, precision: int | None = None) -> int:
    """Round (-1)^sign * m * 2^e, m > 0, into `fmt` (to `precision` bits of it, if given), and accumulate flags.

    m's lowest bit may stand for everything below it when m has at least two bits more than the result.
    """
    p = fmt.precision if precision is None else precision
    top = m.bit_length() + e - 1
    lsb = max(top, fmt.emin) - (p - 1)
    q, inexact, up = _round_at(m, e, lsb, sign, fp.rounding)
    if top < fmt.emin:
        unbounded = top - (p - 1)
        tiny = _round_at(m, e, unbounded, sign, fp.rounding)[0].bit_length() + unbounded - 1 < fmt.emin
        if tiny and fp.ftz and not fmt.explicit:
            fp.flags |= FpFlag.UNDERFLOW | FpFlag.INEXACT
            return fmt.zero(sign)
        if tiny and inexact:
            fp.flags |= FpFlag.UNDERFLOW
    top = q.bit_length() + lsb - 1
    if top > fmt.emax:
        return _overflow(fmt, sign, p, fp)
    if inexact:
        fp.flags |= FpFlag.INEXACT
        if up and fmt.explicit:
            fp.flags |= FpFlag.ROUNDED_UP
    return _encode_exact(fmt, sign, q, lsb)


def _encode_exact(fmt: Format, sign: int, m: int, e: int) -> int:
    """Encode a value known to be representable."""
    if m == 0:
        return fmt.zero(sign)
    top = m.bit_length() + e - 1
    lsb = max(top, fmt.emin) - (fmt.precision - 1)
    significand = m << (e - lsb) if e >= lsb else m >> (lsb - e)
    return fmt.encode(sign, top + fmt.emax if top >= fmt.emin else 0, significand)


def _overflow(fmt: Format, sign: int, precision: int, fp: FpState) -> int:
    fp.flags |= FpFlag.OVERFLOW | FpFlag.INEXACT
    if fp.rounding is Rounding.NEAREST or fp.rounding is (Rounding.DOWN if sign else Rounding.UP):
        if fmt.explicit:
            fp.flags |= FpFlag.ROUNDED_UP
        return fmt.infinity(sign)
    largest = ((1 << precision) - 1) << (fmt.precision - precision)
    return fmt.encode(sign, fmt.emax * 2, largest)


# --- special operands -------------------------------------------------------------------------------------------------
def _invalid(fmt: Format, fp: FpState, nan: str) -> int:
    fp.flags |= FpFlag.INVALID
    return fmt.default_nan(nan)


def _propagate(fmt: Format, a: Number, b: Number, fp: FpState, nan: str) -> int:
    """The NaN that an operation on a and b, at least one of them a NaN, gives; a signalling one is invalid."""
    if Kind.SIGNALLING in (a.kind, b.kind):
        fp.flags |= FpFlag.INVALID
    if nan == "arm":
        chosen = next(x for kind in (Kind.SIGNALLING, Kind.QUIET) for x in (a, b) if x.kind is kind)
    elif not fmt.explicit or not (a.is_nan and b.is_nan):
        chosen = a if a.is_nan else b
    elif a.kind is not b.kind:
        chosen = a if a.kind is Kind.QUIET else b
    else:
        # SDM vol. 1 table 4-7: x87 takes the larger significand; of equal ones, the positive
        field = (1 << fmt.field) - 1
        x, y = a.bits & field, b.bits & field
        chosen = a if x > y or (x == y and not a.sign) else b
    return chosen.bits | fmt.quiet


def _specials(fmt: Format, a: Number, b: Number, fp: FpState, nan: str) -> int | None:
    """The result when an operand is unsupported or a NaN."""
    if Kind.UNSUPPORTED in (a.kind, b.kind):
        return _invalid(fmt, fp, nan)
    if a.is_nan or b.is_nan:
        return _propagate(fmt, a, b, fp, nan)
    return None


def _note_denormals(fp: FpState, *operands: Number) -> None:
    if any(x.denormal for x in operands):
        fp.flags |= FpFlag.DENORMAL


def _precision(fmt: Format, fp: FpState) -> int:
    return fp.precision if fmt.explicit else fmt.precision


# --- arithmetic -------------------------------------------------------------------------------------------------------
def add(fmt: Format, a: int, b: int, fp: FpState, nan: str = "x86", *, subtract: bool = False) -> int:
    x, y = unpack(fmt, a, daz=fp.daz), unpack(fmt, b, daz=fp.daz)
    special = _specials(fmt, x, y, fp, nan)
    if special is not None:
        return special
    y_sign = y.sign ^ subtract
    if x.kind is y.kind is Kind.INFINITE and x.sign != y_sign:
        return _invalid(fmt, fp, nan)
    _note_denormals(fp, x, y)
    if x.kind is Kind.INFINITE:
        return x.bits
    if y.kind is Kind.INFINITE:
        return fmt.infinity(y_sign)
    e = min(x.e, y.e) if x.m and y.m else x.e if x.m else y.e
    total = (x.m << (x.e - e) if x.m else 0) * (-1 if x.sign else 1)
    total += (y.m << (y.e - e) if y.m else 0) * (-1 if y_sign else 1)
    if total == 0:
        same = x.m == 0 and y.m == 0 and x.sign == y_sign
        return fmt.zero(x.sign if same else int(fp.rounding is Rounding.DOWN))
    return round_pack(fmt, int(total < 0), abs(total), e, fp, _precision(fmt, fp))


def sub(fmt: Format, a: int, b: int, fp: FpState, nan: str = "x86") -> int:
    return add(fmt, a, b, fp, nan, subtract=True)


def mul(fmt: Format, a: int, b: int, fp: FpState, nan: str = "x86") -> int:
    x, y = unpack(fmt, a, daz=fp.daz), unpack(fmt, b, daz=fp.daz)
    special = _specials(fmt, x, y, fp, nan)
    if special is not None:
        return special
    sign = x.sign ^ y.sign
    kinds = (x.kind, y.kind)
    if Kind.INFINITE in kinds and Kind.ZERO in kinds:
        return _invalid(fmt, fp, nan)
    _note_denormals(fp, x, y)
    if Kind.INFINITE in kinds:
        return fmt.infinity(sign)
    if Kind.ZERO in kinds:
        return fmt.zero(sign)
    return round_pack(fmt, sign, x.m * y.m, x.e + y.e, fp, _precision(fmt, fp))


def div(fmt: Format, a: int, b: int, fp: FpState, nan: str = "x86") -> int:
    x, y = unpack(fmt, a, daz=fp.daz), unpack(fmt, b, daz=fp.daz)
    special = _specials(fmt, x, y, fp, nan)
    if special is not None:
        return special
    sign = x.sign ^ y.sign
    if x.kind is y.kind and x.kind in (Kind.INFINITE, Kind.ZERO):
        return _invalid(fmt, fp, nan)
    if y.kind is Kind.ZERO and x.kind is Kind.FINITE:
        # a division by zero takes precedence over a denormal dividend (SDM vol. 1, 4.9.2; so do CPUs with both masked)
        fp.flags |= FpFlag.DIVZERO
        return fmt.infinity(sign)
    _note_denormals(fp, x, y)
    if x.kind is Kind.INFINITE:
        return fmt.infinity(sign)
    if y.kind is Kind.INFINITE or x.kind is Kind.ZERO:
        return fmt.zero(sign)
    # enough quotient bits for rounding whatever the operands' lengths, then one sticky bit
    shift = max(0, fmt.precision + 3 + y.m.bit_length() - x.m.bit_length())
    quotient, rest = divmod(x.m << shift, y.m)
    return round_pack(fmt, sign, quotient << 1 | (rest != 0), x.e - y.e - shift - 1, fp, _precision(fmt, fp))


def sqrt(fmt: Format, a: int, fp: FpState, nan: str = "x86") -> int:
    x = unpack(fmt, a, daz=fp.daz)
    special = _specials(fmt, x, x, fp, nan)
    if special is not None:
        return special
    if x.kind is Kind.ZERO:
        return x.bits
    if x.sign:
        return _invalid(fmt, fp, nan)
    _note_denormals(fp, x)
    if x.kind is Kind.INFINITE:
        return x.bits
    shift = 2 * (fmt.precision + 3)
    shift += (x.e - shift) & 1
    scaled = x.m << shift
    root = isqrt(scaled)
    return round_pack(fmt, 0, root << 1 | (root * root != scaled), (x.e - shift) // 2 - 1, fp, _precision(fmt, fp))


# --- comparison -------------------------------------------------------------------------------------------------------
def _order(x: Number, y: Number) -> int:
    """-1, 0 or 1 for numbers (no NaN): x below, equal to, above y."""

    def key(n: Number) -> tuple[int, int]:
        """(class, magnitude) with both zeros equal; finite magnitudes are compared by cross-scaling below."""
        if n.kind is Kind.ZERO:
            return 0, 0
        return (-1 if n.sign else 1), 0

    a, b = key(x)[0], key(y)[0]
    if a != b or a == 0:
        return (a > b) - (a < b)
    if x.kind is Kind.INFINITE or y.kind is Kind.INFINITE:
        larger = (x.kind is Kind.INFINITE) - (y.kind is Kind.INFINITE)
    else:
        e = min(x.e, y.e)
        left, right = x.m << (x.e - e), y.m << (y.e - e)
        larger = (left > right) - (left < right)
    return larger * a


def compare(fmt: Format, a: int, b: int, fp: FpState, *, signal: bool) -> int | None:
    """-1, 0, 1, or None when unordered; a signalling NaN is invalid, a quiet one too when `signal`."""
    x, y = unpack(fmt, a, daz=fp.daz), unpack(fmt, b, daz=fp.daz)
    kinds = (x.kind, y.kind)
    if Kind.UNSUPPORTED in kinds or x.is_nan or y.is_nan:
        if signal or Kind.UNSUPPORTED in kinds or Kind.SIGNALLING in kinds:
            fp.flags |= FpFlag.INVALID
        return None
    _note_denormals(fp, x, y)
    return _order(x, y)


def test(fmt: Format, fcond: FCond, a: int, b: int, fp: FpState, *, signal: bool) -> bool:
    order = compare(fmt, a, b, fp, signal=signal)
    if order is None:
        return fcond is FCond.UN
    return {FCond.EQ: order == 0, FCond.LT: order < 0, FCond.LE: order <= 0, FCond.UN: False}[fcond]


def _pick(fmt: Format, a: int, b: int, fp: FpState, wanted: int) -> int:
    """x86 MIN/MAX (SDM vol. 2): the second operand if either is a NaN or both are zero; any NaN is invalid."""
    x, y = unpack(fmt, a, daz=fp.daz), unpack(fmt, b, daz=fp.daz)
    order = compare(fmt, a, b, fp, signal=True)
    return x.bits if order == wanted else y.bits


def minimum(fmt: Format, a: int, b: int, fp: FpState) -> int:
    return _pick(fmt, a, b, fp, -1)


def maximum(fmt: Format, a: int, b: int, fp: FpState) -> int:
    return _pick(fmt, a, b, fp, 1)


# --- conversions ------------------------------------------------------------------------------------------------------
def to_format(source: Format, to: Format, a: int, fp: FpState, nan: str = "x86") -> int:
    """Between formats. An 80-bit denormal operand raises no denormal exception (SDM vol. 2, FST)."""
    x = unpack(source, a, daz=fp.daz and not to.explicit)
    if x.kind is Kind.UNSUPPORTED:
        return _invalid(to, fp, nan)
    if x.is_nan:
        if x.kind is Kind.SIGNALLING:
            fp.flags |= FpFlag.INVALID
        shift = to.precision - source.precision
        fraction = x.bits & ((1 << (source.precision - 1)) - 1)
        fraction = fraction << shift if shift >= 0 else fraction >> -shift
        return to.encode(x.sign, (1 << to.exponent) - 1, fraction | 3 << (to.precision - 2))
    if x.kind is Kind.INFINITE:
        return to.infinity(x.sign)
    if x.kind is Kind.ZERO:
        return to.zero(x.sign)
    if not source.explicit:
        _note_denormals(fp, x)
    return _round_narrow(to, x, fp, extended=source.explicit)


def _round_narrow(to: Format, x: Number, fp: FpState, *, extended: bool) -> int:
    """Round into `to`; a store from x87 (`extended`) reports C1 and never flushes to zero."""
    if not extended:
        return round_pack(to, x.sign, x.m, x.e, fp)
    local = FpState(fp.rounding)
    result = round_pack(to, x.sign, x.m, x.e, local)
    fp.flags |= local.flags
    if local.flags & FpFlag.INEXACT:
        magnitude = unpack(to, result)
        if magnitude.kind is Kind.INFINITE or (
            magnitude.kind is Kind.FINITE and _order(_absolute(magnitude), _absolute(x)) > 0
        ):
            fp.flags |= FpFlag.ROUNDED_UP
    return result


def _absolute(x: Number) -> Number:
    return Number(x.kind, 0, x.bits, x.m, x.e, x.denormal)


def from_int(fmt: Format, value: int, fp: FpState) -> int:
    """From a signed Python int."""
    return round_pack(fmt, int(value < 0), abs(value), 0, fp) if value else fmt.zero(0)


def to_int(fmt: Format, a: int, width: int, fp: FpState, rounding: Rounding) -> int:
    """To a `width`-bit two's complement int; NaN or out of range: invalid alone and x86's integer indefinite."""
    x = unpack(fmt, a, daz=fp.daz)
    if x.kind is Kind.ZERO:
        return 0
    if x.kind is Kind.FINITE:
        q, inexact, up = _round_at(x.m, x.e, 0, x.sign, rounding)
        value = -q if x.sign else q
        if -(1 << (width - 1)) <= value < 1 << (width - 1):
            _note_inexact(fmt, fp, inexact, up)
            return value & ((1 << width) - 1)
    fp.flags |= FpFlag.INVALID
    return 1 << (width - 1)


def _note_inexact(fmt: Format, fp: FpState, inexact: bool, up: bool) -> None:
    if inexact:
        fp.flags |= FpFlag.INEXACT
        if up and fmt.explicit:
            fp.flags |= FpFlag.ROUNDED_UP


def round_int(fmt: Format, a: int, fp: FpState, rounding: Rounding, *, exact: bool, nan: str = "x86") -> int:
    """To an integral value of the same format, a zero keeping its sign; inexact is raised only when `exact`.

    Only the 80-bit one (FRNDINT) reports a denormal operand.
    """
    x = unpack(fmt, a, daz=fp.daz)
    special = _specials(fmt, x, x, fp, nan)
    if special is not None:
        return special
    if x.kind is not Kind.FINITE:
        return x.bits
    if fmt.explicit:
        _note_denormals(fp, x)
    q, inexact, up = _round_at(x.m, x.e, 0, x.sign, rounding)
    if exact:
        _note_inexact(fmt, fp, inexact, up)
    return _encode_exact(fmt, x.sign, q, 0) if inexact else a
