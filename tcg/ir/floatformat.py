"""Floating-point formats: taking an encoding apart, rounding an exact value into one, the control and flags in force.

A finite number is (sign, m, e): (-1)^sign * m * 2^e with an unbounded int m. `softfloat` computes with these exactly (a
quotient or root keeps a sticky lowest bit) and `round_pack` is the only place that rounds to a format. As on x86 (SDM
vol. 1, 4.8 and 4.9), tininess is detected after rounding.
"""

from dataclasses import dataclass
from enum import Enum, IntFlag

from tcg.ir.types import F32, F64, F80, Rounding, Type


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


def round_at(m: int, e: int, lsb: int, sign: int, rounding: Rounding) -> tuple[int, bool, bool]:
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
    q, inexact, up = round_at(m, e, lsb, sign, fp.rounding)
    if top < fmt.emin:
        unbounded = top - (p - 1)
        tiny = round_at(m, e, unbounded, sign, fp.rounding)[0].bit_length() + unbounded - 1 < fmt.emin
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
    return encode_exact(fmt, sign, q, lsb)


def encode_exact(fmt: Format, sign: int, m: int, e: int) -> int:
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
