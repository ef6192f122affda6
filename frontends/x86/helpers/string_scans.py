"""REPE/REPNE CMPS and SCAS in bulk (see `strings`)."""

from frontends.x86.helpers.access import failed
from frontends.x86.helpers.env import CC_DST, CC_OP, CC_SRC, DF, EXIT_REQUEST, MMU_INDEX, RAX, RCX, RDI, RSI
from frontends.x86.helpers.runtime import ld_sized, load_as, tlb_probe
from frontends.x86.helpers.strings import (
    READ,
    SUBB,
    address_mask,
    advance,
    at_most,
    es_base,
    linear,
    piece,
    write_masked,
)
from tcg.runtime.memory import exported, ld32, ld64, least, lsr, native, st32, st64


@native
def size_log2(size: int) -> int:
    if size == 8:
        return 3
    return size >> 1


@native
def set_compare(env: int, a: int, b: int, size: int) -> None:
    """Flags of a - b."""
    mask = lsr(-1, 64 - 8 * size)
    st64(env + CC_DST, (a - b) & mask)
    st64(env + CC_SRC, b)
    st32(env + CC_OP, SUBB + size_log2(size))


@exported
def helper_x86_rep_cmps(env: int, size: int, asize: int, base: int, repne: int) -> int:
    """REPE/REPNE CMPS: base:RSI minus ES:RDI until RCX is 0 or ZF differs from the prefix's."""
    mask = address_mask(asize)
    step = ld64(env + DF) * size
    index = ld32(env + MMU_INDEX)
    to_base = es_base(env)
    while True:
        left = ld64(env + RCX) & mask
        if left == 0:
            return 0
        one = linear(env, base, ld64(env + RSI), mask)
        other = linear(env, to_base, ld64(env + RDI), mask)
        count = piece(one, ld64(env + RSI), mask, size, step)
        count = at_most(least(count, piece(other, ld64(env + RDI), mask, size, step)), left)
        one_hva = 0
        other_hva = 0
        if count > 0:
            one_hva = tlb_probe(env, one, READ, index)
            if one_hva == -1:
                return 0
            other_hva = tlb_probe(env, other, READ, index)
            if other_hva == -1:
                return 0
        a = b = 0
        if one_hva != 0 and other_hva != 0:
            n = 0
            while n < count:
                a = ld_sized(one_hva + n * step, size)
                b = ld_sized(other_hva + n * step, size)
                n += 1
                if (a == b) == (repne != 0):
                    break
            count = n
        else:
            count = 1
            a = load_as(env, one, size, index)
            if failed(env):
                return 0
            b = load_as(env, other, size, index)
            if failed(env):
                return 0
        set_compare(env, a, b, size)
        advance(env, RSI, count, step, mask, asize)
        advance(env, RDI, count, step, mask, asize)
        write_masked(env + RCX, left - count, asize)
        if left == count or (a == b) == (repne != 0):
            return 0
        if ld32(env + EXIT_REQUEST):
            return 1


@exported
def helper_x86_rep_scas(env: int, size: int, asize: int, repne: int) -> int:
    """REPE/REPNE SCAS: the accumulator minus ES:RDI until RCX is 0 or ZF differs from the prefix's."""
    mask = address_mask(asize)
    step = ld64(env + DF) * size
    index = ld32(env + MMU_INDEX)
    to_base = es_base(env)
    a = ld64(env + RAX) & lsr(-1, 64 - 8 * size)
    while True:
        left = ld64(env + RCX) & mask
        if left == 0:
            return 0
        to = linear(env, to_base, ld64(env + RDI), mask)
        count = at_most(piece(to, ld64(env + RDI), mask, size, step), left)
        hva = 0
        if count > 0:
            hva = tlb_probe(env, to, READ, index)
            if hva == -1:
                return 0
        b = 0
        if hva != 0:
            n = 0
            while n < count:
                b = ld_sized(hva + n * step, size)
                n += 1
                if (a == b) == (repne != 0):
                    break
            count = n
        else:
            count = 1
            b = load_as(env, to, size, index)
            if failed(env):
                return 0
        set_compare(env, a, b, size)
        advance(env, RDI, count, step, mask, asize)
        write_masked(env + RCX, left - count, asize)
        if left == count or (a == b) == (repne != 0):
            return 0
        if ld32(env + EXIT_REQUEST):
            return 1
