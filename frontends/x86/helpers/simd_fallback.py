"""AES, carry-less products and SHA for hosts without these instructions: natives that a backend calls instead.

Arguments come in env.scratch[0], [1], [2] and the result goes to scratch[0]; an immediate is an ordinary argument.
Meaning: `simd_reference` (SDM vol. 2; FIPS 197, FIPS 180-4). Slow and free of tables, hence of cache timing too. What
every x86-64-v2 host has (up to SSE4.2) needs no fallback here.
"""

from frontends.x86.state import STATE
from tcg.runtime.memory import exported, ld8, ld32, ld64, lsr, native, st8, st32, st64

A, B, C, RESULT = (STATE.offset("scratch", n) for n in (0, 1, 2, 3))


# --- AES --------------------------------------------------------------------------------------------------------------
@native
def gf_times(a: int, b: int) -> int:
    """Product in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1."""
    product = 0
    while b != 0:
        product ^= a & -(b & 1)
        a = ((a << 1) ^ (0x11B & -(lsr(a, 7) & 1))) & 0xFF
        b = lsr(b, 1)
    return product


@native
def gf_inverse(a: int) -> int:
    """a^254, which is the inverse, and 0 for 0."""
    result = 1
    power = a
    for _ in range(7):
        power = gf_times(power, power)
        result = gf_times(result, power)
    return result


@native
def turn8(a: int, by: int) -> int:
    return ((a << by) | lsr(a, 8 - by)) & 0xFF


@native
def substituted(a: int) -> int:
    """The S-box (FIPS 197, 5.1.1)."""
    a = gf_inverse(a)
    return a ^ turn8(a, 1) ^ turn8(a, 2) ^ turn8(a, 3) ^ turn8(a, 4) ^ 0x63


@native
def unsubstituted(a: int) -> int:
    return gf_inverse(turn8(a, 1) ^ turn8(a, 3) ^ turn8(a, 6) ^ 0x05)


@native
def aes_rows(env: int, inverse: int) -> None:
    """scratch[3] := scratch[0] with rows shifted and bytes substituted, or both undone."""
    for column in range(4):
        for row in range(4):
            step = row if inverse == 0 else 4 - row
            value = ld8(env + A + 4 * ((column + step) & 3) + row)
            st8(env + RESULT + 4 * column + row, substituted(value) if inverse == 0 else unsubstituted(value))


@native
def aes_mix(env: int, at: int, f0: int, f1: int, f2: int, f3: int) -> None:
    """The columns at env + at times the circulant matrix of f."""
    for column in range(4):
        here = env + at + 4 * column
        v0, v1, v2, v3 = ld8(here), ld8(here + 1), ld8(here + 2), ld8(here + 3)
        st8(here, gf_times(v0, f0) ^ gf_times(v1, f1) ^ gf_times(v2, f2) ^ gf_times(v3, f3))
        st8(here + 1, gf_times(v0, f3) ^ gf_times(v1, f0) ^ gf_times(v2, f1) ^ gf_times(v3, f2))
        st8(here + 2, gf_times(v0, f2) ^ gf_times(v1, f3) ^ gf_times(v2, f0) ^ gf_times(v3, f1))
        st8(here + 3, gf_times(v0, f1) ^ gf_times(v1, f2) ^ gf_times(v2, f3) ^ gf_times(v3, f0))


@native
def aes_key(env: int) -> None:
    """scratch[0] := scratch[3] xor the round key in scratch[1]."""
    st64(env + A, ld64(env + RESULT) ^ ld64(env + B))
    st64(env + A + 8, ld64(env + RESULT + 8) ^ ld64(env + B + 8))


@exported
def helper_x86_aesenc(env: int) -> None:
    aes_rows(env, 0)
    aes_mix(env, RESULT, 2, 3, 1, 1)
    aes_key(env)


@exported
def helper_x86_aesenclast(env: int) -> None:
    aes_rows(env, 0)
    aes_key(env)


@exported
def helper_x86_aesdec(env: int) -> None:
    aes_rows(env, 1)
    aes_mix(env, RESULT, 14, 11, 13, 9)
    aes_key(env)


@exported
def helper_x86_aesdeclast(env: int) -> None:
    aes_rows(env, 1)
    aes_key(env)


@exported
def helper_x86_aesimc(env: int) -> None:
    aes_mix(env, A, 14, 11, 13, 9)


@native
def substituted_word(word: int) -> int:
    low = substituted(word & 0xFF) | (substituted(lsr(word, 8) & 0xFF) << 8)
    return low | (substituted(lsr(word, 16) & 0xFF) << 16) | (substituted(lsr(word, 24) & 0xFF) << 24)


@exported
def helper_x86_aeskeygenassist(env: int, imm: int) -> None:
    first, second = substituted_word(ld32(env + A + 4)), substituted_word(ld32(env + A + 12))
    st32(env + A, first)
    st32(env + A + 4, rotr(first, 8) ^ imm)
    st32(env + A + 8, second)
    st32(env + A + 12, rotr(second, 8) ^ imm)


# --- carry-less product -----------------------------------------------------------------------------------------------
@exported
def helper_x86_pclmulqdq(env: int, imm: int) -> None:
    a, b = ld64(env + A + 8 * (imm & 1)), ld64(env + B + 8 * (lsr(imm, 4) & 1))
    low = a & -(b & 1)
    high = 0
    for i in range(1, 64):
        chosen = -(lsr(b, i) & 1)
        low ^= (a << i) & chosen
        high ^= lsr(a, 64 - i) & chosen
    st64(env + A, low)
    st64(env + A + 8, high)


# --- SHA --------------------------------------------------------------------------------------------------------------
@native
def rotl(a: int, by: int) -> int:
    a &= 0xFFFFFFFF
    return ((a << by) | lsr(a, 32 - by)) & 0xFFFFFFFF


@native
def rotr(a: int, by: int) -> int:
    return rotl(a, 32 - by)


@native
def word(env: int, at: int, n: int) -> int:
    return ld32(env + at + 4 * n)


@native
def put_words(env: int, w0: int, w1: int, w2: int, w3: int) -> None:
    """scratch[0] := four words, the lowest first."""
    st32(env + A, w0)
    st32(env + A + 4, w1)
    st32(env + A + 8, w2)
    st32(env + A + 12, w3)


@native
def sha1_function(kind: int, b: int, c: int, d: int) -> int:
    if kind == 0:
        return ((b & c) ^ (~b & d)) + 0x5A827999
    if kind == 1:
        return (b ^ c ^ d) + 0x6ED9EBA1
    if kind == 2:
        return ((b & c) ^ (b & d) ^ (c & d)) + 0x8F1BBCDC
    return (b ^ c ^ d) + 0xCA62C1D6


@exported
def helper_x86_sha1rnds4(env: int, imm: int) -> None:
    d, c, b, a = word(env, A, 0), word(env, A, 1), word(env, A, 2), word(env, A, 3)
    e = 0
    for n in range(4):
        total = (sha1_function(imm & 3, b, c, d) + rotl(a, 5) + word(env, B, 3 - n) + e) & 0xFFFFFFFF
        e = d
        d = c
        c = rotl(b, 30)
        b = a
        a = total
    put_words(env, d, c, b, a)


@exported
def helper_x86_sha1nexte(env: int) -> None:
    e = rotl(word(env, A, 3), 30)
    put_words(env, word(env, B, 0), word(env, B, 1), word(env, B, 2), word(env, B, 3) + e)


@exported
def helper_x86_sha1msg1(env: int) -> None:
    w3, w2, w1, w0 = word(env, A, 0), word(env, A, 1), word(env, A, 2), word(env, A, 3)
    put_words(env, word(env, B, 2) ^ w3, word(env, B, 3) ^ w2, w3 ^ w1, w2 ^ w0)


@exported
def helper_x86_sha1msg2(env: int) -> None:
    w16 = rotl(word(env, A, 3) ^ word(env, B, 2), 1)
    w17 = rotl(word(env, A, 2) ^ word(env, B, 1), 1)
    w18 = rotl(word(env, A, 1) ^ word(env, B, 0), 1)
    put_words(env, rotl(word(env, A, 0) ^ w16, 1), w18, w17, w16)


@exported
def helper_x86_sha256rnds2(env: int) -> None:
    h, g, d, c = word(env, A, 0), word(env, A, 1), word(env, A, 2), word(env, A, 3)
    f, e, b, a = word(env, B, 0), word(env, B, 1), word(env, B, 2), word(env, B, 3)
    for n in range(2):
        chosen = ((e & f) ^ (~e & g)) & 0xFFFFFFFF
        total = chosen + (rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25)) + word(env, C, n) + h
        majority = (a & b) ^ (a & c) ^ (b & c)
        h = g
        g = f
        f = e
        e = (d + total) & 0xFFFFFFFF
        d = c
        total += majority + (rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22))
        c = b
        b = a
        a = total & 0xFFFFFFFF
    put_words(env, f, e, b, a)


@native
def small_sigma0(w: int) -> int:
    return rotr(w, 7) ^ rotr(w, 18) ^ lsr(w & 0xFFFFFFFF, 3)


@native
def small_sigma1(w: int) -> int:
    return rotr(w, 17) ^ rotr(w, 19) ^ lsr(w & 0xFFFFFFFF, 10)


@exported
def helper_x86_sha256msg1(env: int) -> None:
    w0, w1, w2, w3 = word(env, A, 0), word(env, A, 1), word(env, A, 2), word(env, A, 3)
    w4 = word(env, B, 0)
    put_words(env, w0 + small_sigma0(w1), w1 + small_sigma0(w2), w2 + small_sigma0(w3), w3 + small_sigma0(w4))


@exported
def helper_x86_sha256msg2(env: int) -> None:
    w16 = word(env, A, 0) + small_sigma1(word(env, B, 2))
    w17 = word(env, A, 1) + small_sigma1(word(env, B, 3))
    w18 = word(env, A, 2) + small_sigma1(w16)
    put_words(env, w16, w17, w18, word(env, A, 3) + small_sigma1(w17))
