"""A native function that applies one primitive to memory, so that a test can compare compiled and Python meanings."""

from tcg.runtime import memory as m
from tcg.runtime.memory import exported


@exported
def sample_unary(which: int, a: int) -> int:
    if which == 0:
        return m.zx8(a)
    if which == 1:
        return m.zx16(a)
    if which == 2:
        return m.zx32(a)
    if which == 3:
        return m.sx8(a)
    if which == 4:
        return m.sx16(a)
    if which == 5:
        return m.sx32(a)
    if which == 6:
        return m.clz64(a)
    if which == 7:
        return m.ctz64(a)
    if which == 8:
        return m.popcount64(a)
    if which == 9:
        return m.bswap16(a)
    if which == 10:
        return m.bswap32(a)
    return m.bswap64(a)


@exported
def sample_binary(which: int, a: int, b: int) -> int:
    if which == 0:
        return m.lsr(a, b)
    if which == 1:
        return m.asr(a, b)
    if which == 2:
        return m.shl(a, b)
    if which == 3:
        return m.ult(a, b)
    if which == 4:
        return m.ule(a, b)
    if which == 5:
        return m.add32(a, b)
    if which == 6:
        return m.mulhu(a, b)
    if which == 7:
        return m.mulhs(a, b)
    if b == 0:
        return 0
    if which == 8:
        return m.udiv(a, b)
    return m.urem(a, b)


@exported
def sample_memory(which: int, at: int, a: int, b: int) -> int:
    """One access of each kind at `at`."""
    if which == 0:
        m.st8(at, a)
        return m.ld8(at) ^ m.ld8s(at + 1)
    if which == 1:
        m.st16(at + 1, a)
        return m.ld16(at) ^ m.ld16s(at + 1)
    if which == 2:
        m.st32(at + 3, a)
        return m.ld32(at + 2) ^ m.ld32s(at + 3)
    if which == 3:
        m.st64(at + 5, a)
        return m.ld64(at + 1)
    if which == 4:
        return m.atomic_or32(at, a) ^ m.atomic_and32(at + 4, a)
    if which == 5:
        return m.atomic_add32(at, a) ^ m.atomic_add64(at + 8, b)
    if which == 6:
        return m.xchg32(at, a) ^ m.xchg64(at + 8, b)
    if which == 7:
        return m.cas8(at, m.ld8(at), a) ^ m.cas16(at + 2, b, a)
    if which == 8:
        return m.cas32(at, m.ld32(at), a) ^ m.cas64(at + 8, m.ld64(at + 8), b)
    if which == 9:
        m.store32_release(at, a)
        m.store64_release(at + 8, b)
        return m.load32_acquire(at) ^ m.load64_acquire(at + 8)
    if which == 10:
        m.memset(at, a, 7)
        m.memmove(at + 1, at, 20)
        m.memcpy(at + 32, at, 9)
        return m.memcmp_eq(at, at + 32, 9)
    return m.cas128(at, at + 16, at + 32)
