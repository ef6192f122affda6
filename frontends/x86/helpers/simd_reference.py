"""The meaning of the pure SIMD helpers on Python ints: what the reference interpreter calls and backends are held to.

REFERENCE: helper name -> function of non-negative ints, operands in the declaration's order (SDM vol. 2, under the
instruction's name; FIPS 197 for AES, FIPS 180-4 for SHA).
"""

import struct
from collections.abc import Callable, Iterable
from math import inf, isinf, isnan, sqrt

REFERENCE: dict[str, Callable[..., int]] = {}
M32 = (1 << 32) - 1


def _meaning(name: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    def register(function: Callable[..., int]) -> Callable[..., int]:
        REFERENCE[f"x86_{name}"] = function
        return function

    return register


def _split(value: int, width: int) -> list[int]:
    return [value >> i & ((1 << width) - 1) for i in range(0, 128, width)]


def _join(lanes: Iterable[int], width: int) -> int:
    return sum((lane & ((1 << width) - 1)) << i * width for i, lane in enumerate(lanes))


def _signed(value: int, width: int) -> int:
    return value - (1 << width) if value >> (width - 1) else value


def _words(value: int) -> list[int]:
    """The eight signed words."""
    return [_signed(v, 16) for v in _split(value, 16)]


def _saturate(value: int) -> int:
    return max(-0x8000, min(0x7FFF, value))


# --- packed integers --------------------------------------------------------------------------------------------------
@_meaning("pmaddwd")
def pmaddwd(a: int, b: int) -> int:
    products = [p * q for p, q in zip(_words(a), _words(b), strict=True)]
    return _join((products[i] + products[i + 1] for i in range(0, 8, 2)), 32)


@_meaning("pmaddubsw")
def pmaddubsw(a: int, b: int) -> int:
    products = [p * _signed(q, 8) for p, q in zip(_split(a, 8), _split(b, 8), strict=True)]
    return _join((_saturate(products[i] + products[i + 1]) for i in range(0, 16, 2)), 16)


@_meaning("psadbw")
def psadbw(a: int, b: int) -> int:
    distances = [abs(p - q) for p, q in zip(_split(a, 8), _split(b, 8), strict=True)]
    return sum(distances[:8]) | sum(distances[8:]) << 64


@_meaning("pmulhrsw")
def pmulhrsw(a: int, b: int) -> int:
    return _join((((p * q >> 14) + 1) >> 1 for p, q in zip(_words(a), _words(b), strict=True)), 16)


@_meaning("phminposuw")
def phminposuw(a: int) -> int:
    words = _split(a, 16)
    least = min(words)
    return least | words.index(least) << 16


@_meaning("mpsadbw")
def mpsadbw(a: int, b: int, imm: int) -> int:
    p, q = _split(a, 8)[4 * (imm >> 2 & 1) :], _split(b, 8)[4 * (imm & 3) :]
    return _join((sum(abs(p[i + k] - q[k]) for k in range(4)) for i in range(8)), 16)


# --- AES --------------------------------------------------------------------------------------------------------------
def _times(a: int, b: int) -> int:
    """Product in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = a << 1 ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product


def _substitution() -> list[int]:
    """The S-box: inverse in GF(2^8), then the affine map (FIPS 197, 5.1.1)."""
    box = []
    for value in range(256):
        inverse = next((i for i in range(256) if _times(value, i) == 1), 0)
        turned = [inverse << n & 0xFF | inverse >> 8 - n for n in range(5)]
        box.append(turned[0] ^ turned[1] ^ turned[2] ^ turned[3] ^ turned[4] ^ 0x63)
    return box


SBOX = _substitution()
INVERSE_SBOX = [SBOX.index(i) for i in range(256)]


def _shift_rows(state: int, step: int) -> list[int]:
    """The bytes of the state, row r turned by step * r columns."""
    data = _split(state, 8)
    return [data[(4 * (column + step * row) + row) % 16] for column in range(4) for row in range(4)]


def _mix(data: list[int], factors: tuple[int, int, int, int]) -> int:
    """Each column times the circulant matrix of `factors`."""
    mixed = []
    for column in range(0, 16, 4):
        for row in range(4):
            total = 0
            for k in range(4):
                total ^= _times(data[column + k], factors[(k - row) % 4])
            mixed.append(total)
    return _join(mixed, 8)


_MIX, _UNMIX = (2, 3, 1, 1), (14, 11, 13, 9)


@_meaning("aesenc")
def aesenc(state: int, key: int) -> int:
    return _mix([SBOX[v] for v in _shift_rows(state, 1)], _MIX) ^ key


@_meaning("aesenclast")
def aesenclast(state: int, key: int) -> int:
    return _join((SBOX[v] for v in _shift_rows(state, 1)), 8) ^ key


@_meaning("aesdec")
def aesdec(state: int, key: int) -> int:
    return _mix([INVERSE_SBOX[v] for v in _shift_rows(state, -1)], _UNMIX) ^ key


@_meaning("aesdeclast")
def aesdeclast(state: int, key: int) -> int:
    return _join((INVERSE_SBOX[v] for v in _shift_rows(state, -1)), 8) ^ key


@_meaning("aesimc")
def aesimc(key: int) -> int:
    return _mix(_split(key, 8), _UNMIX)


@_meaning("aeskeygenassist")
def aeskeygenassist(key: int, imm: int) -> int:
    def substituted(word: int) -> int:
        return sum(SBOX[word >> n & 0xFF] << n for n in range(0, 32, 8))

    words = _split(key, 32)
    result = []
    for word in (words[1], words[3]):
        s = substituted(word)
        result += [s, (s >> 8 | s << 24) & M32 ^ (imm & 0xFF)]
    return _join(result, 32)


@_meaning("pclmulqdq")
def pclmulqdq(a: int, b: int, imm: int) -> int:
    p, q = _split(a, 64)[imm & 1], _split(b, 64)[imm >> 4 & 1]
    product = 0
    for i in range(64):
        if q >> i & 1:
            product ^= p << i
    return product


# --- SHA --------------------------------------------------------------------------------------------------------------
def _rotl(value: int, by: int) -> int:
    return (value << by | value >> 32 - by) & M32


def _rotr(value: int, by: int) -> int:
    return _rotl(value, 32 - by)


_SHA1_CONSTANTS = (0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xCA62C1D6)


@_meaning("sha1rnds4")
def sha1rnds4(state: int, message: int, imm: int) -> int:
    """Four rounds; word 3 of each operand is the first. E is part of the message's first word."""
    d, c, b, a = _split(state, 32)
    e = 0
    for word in reversed(_split(message, 32)):
        match imm & 3:
            case 0:
                f = b & c ^ ~b & d
            case 2:
                f = b & c ^ b & d ^ c & d
            case _:
                f = b ^ c ^ d
        total = (f & M32) + _rotl(a, 5) + word + e + _SHA1_CONSTANTS[imm & 3] & M32
        a, b, c, d, e = total, a, _rotl(b, 30), c, d
    return _join((d, c, b, a), 32)


@_meaning("sha1nexte")
def sha1nexte(state: int, message: int) -> int:
    words = _split(message, 32)
    words[3] = words[3] + _rotl(state >> 96, 30) & M32
    return _join(words, 32)


@_meaning("sha1msg1")
def sha1msg1(a: int, b: int) -> int:
    w3, w2, w1, w0 = _split(a, 32)
    w5, w4 = _split(b, 32)[2:]
    return _join((w5 ^ w3, w4 ^ w2, w3 ^ w1, w2 ^ w0), 32)


@_meaning("sha1msg2")
def sha1msg2(a: int, b: int) -> int:
    p, q = _split(a, 32), _split(b, 32)
    w16 = _rotl(p[3] ^ q[2], 1)
    return _join((_rotl(p[0] ^ w16, 1), _rotl(p[1] ^ q[0], 1), _rotl(p[2] ^ q[1], 1), w16), 32)


@_meaning("sha256rnds2")
def sha256rnds2(cdgh: int, abef: int, message: int) -> int:
    h, g, d, c = _split(cdgh, 32)
    f, e, b, a = _split(abef, 32)
    for word in _split(message, 32)[:2]:
        chosen = e & f ^ ~e & M32 & g
        sigma1 = _rotr(e, 6) ^ _rotr(e, 11) ^ _rotr(e, 25)
        total = chosen + sigma1 + word + h
        majority = a & b ^ a & c ^ b & c
        sigma0 = _rotr(a, 2) ^ _rotr(a, 13) ^ _rotr(a, 22)
        a, b, c, d, e, f, g, h = total + majority + sigma0 & M32, a, b, c, total + d & M32, e, f, g
    return _join((f, e, b, a), 32)


def _small_sigma0(w: int) -> int:
    return _rotr(w, 7) ^ _rotr(w, 18) ^ w >> 3


def _small_sigma1(w: int) -> int:
    return _rotr(w, 17) ^ _rotr(w, 19) ^ w >> 10


@_meaning("sha256msg1")
def sha256msg1(a: int, b: int) -> int:
    words = [*_split(a, 32), b & M32]
    return _join((words[i] + _small_sigma0(words[i + 1]) for i in range(4)), 32)


@_meaning("sha256msg2")
def sha256msg2(a: int, b: int) -> int:
    p, (_, _, w14, w15) = _split(a, 32), _split(b, 32)
    w16 = p[0] + _small_sigma1(w14) & M32
    w17 = p[1] + _small_sigma1(w15) & M32
    return _join((w16, w17, p[2] + _small_sigma1(w16), p[3] + _small_sigma1(w17)), 32)


# --- string comparison ------------------------------------------------------------------------------------------------
def _string_mask(a: int, la: int, b: int, lb: int, imm: int) -> int:
    """IntRes2 as a bit mask (SDM vol. 2, 4.1): first operand a with la valid elements, second b with lb."""
    width = 16 if imm & 1 else 8
    count = 128 // width
    p, q = _split(a, width), _split(b, width)
    if imm & 2:
        p, q = [_signed(v, width) for v in p], [_signed(v, width) for v in q]
    bits = 0
    for j in range(count):
        match imm >> 2 & 3:
            case 0:  # equal any
                hit = j < lb and any(p[i] == q[j] for i in range(la))
            case 1:  # ranges
                hit = j < lb and any(p[i] <= q[j] <= p[i + 1] for i in range(0, la - 1, 2))
            case 2:  # equal each: both ended is a match
                hit = p[j] == q[j] if j < la and j < lb else j >= la and j >= lb
            case _:  # equal ordered: the first string occurs here, as far as the operand goes
                hit = all(j + i < lb and p[i] == q[j + i] for i in range(min(la, count - j)))
        bits |= int(hit) << j
    if imm & 0x10:
        bits ^= (1 << lb) - 1 if imm & 0x20 else (1 << count) - 1
    return bits


def _implicit_length(value: int, imm: int) -> int:
    width = 16 if imm & 1 else 8
    lanes = _split(value, width)
    return lanes.index(0) if 0 in lanes else len(lanes)


def _explicit_length(length: int, imm: int) -> int:
    return min(abs(_signed(length, 32)), 8 if imm & 1 else 16)


@_meaning("pcmpistrm")
def pcmpistrm(a: int, b: int, imm: int) -> int:
    return _string_mask(a, _implicit_length(a, imm), b, _implicit_length(b, imm), imm)


@_meaning("pcmpestrm")
def pcmpestrm(a: int, la: int, b: int, lb: int, imm: int) -> int:
    return _string_mask(a, _explicit_length(la, imm), b, _explicit_length(lb, imm), imm)


# --- approximations ---------------------------------------------------------------------------------------------------
# Processors differ within a relative error of 1.5 * 2^-12; here the result is exact, rounded to 12 bits. Denormal
# operands count as zero and denormal results are zero, whatever MXCSR says (SDM vol. 2, RCPPS, RSQRTPS).
_QUIET = 0x400000
_DEFAULT_NAN = 0xFFC00000


def _float(bits: int) -> float:
    value: float = struct.unpack("<f", struct.pack("<I", bits))[0]
    return value if bits & 0x7F800000 else 0.0 * value


def _bits(value: float) -> int:
    if abs(value) > 3.4e38:
        value = inf if value > 0 else -inf
    word: int = struct.unpack("<I", struct.pack("<f", value))[0]
    if not isinf(value):
        word = word + 0x400 & ~0x7FF
    return word if word & 0x7F800000 else word & 0x80000000


def _reciprocal(bits: int) -> int:
    value = _float(bits)
    if isnan(value):
        return bits | _QUIET
    if value == 0:
        return bits & 0x80000000 | 0x7F800000
    return _bits(1 / value)


def _reciprocal_root(bits: int) -> int:
    value = _float(bits)
    if isnan(value):
        return bits | _QUIET
    if value == 0:
        return bits & 0x80000000 | 0x7F800000
    return _DEFAULT_NAN if value < 0 else _bits(1 / sqrt(value))


@_meaning("rcpps")
def rcpps(a: int) -> int:
    return _join((_reciprocal(v) for v in _split(a, 32)), 32)


@_meaning("rsqrtps")
def rsqrtps(a: int) -> int:
    return _join((_reciprocal_root(v) for v in _split(a, 32)), 32)
