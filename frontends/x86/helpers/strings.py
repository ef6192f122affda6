"""Repeated string instructions in bulk (SDM volume 1, 7.3.9; volume 2, REP, MOVS, STOS, LODS, CMPS, SCAS, INS, OUTS).

Each call works through the pages that source and destination lie in by host pointers, falling back to single elements
where a page has none (MMIO, translated code) or an element crosses a page. RSI, RDI and RCX are exact after every
piece, so a fault, or a request to leave (result 1), just makes the instruction begin again with what is left.
"""

from frontends.x86.flags import CcOp
from frontends.x86.helpers.access import failed
from frontends.x86.helpers.env import CODE64_MODE, DF, ES, EXIT_REQUEST, MMU_INDEX, MODE, RAX, RCX, RDI, RSI, SEG_BASE
from frontends.x86.helpers.runtime import ld_sized, load_as, st_sized, store_as, tlb_probe
from tcg.runtime.layout import Callback
from tcg.runtime.memory import exported, ld32, ld64, least, memcpy, memmove, memset, native, st8, st16, st64

PORT_READ, PORT_WRITE = int(Callback.PORT_READ), int(Callback.PORT_WRITE)
SUBB = int(CcOp.SUBB)
PAGE = 4096
READ, WRITE = 0, 1


@native
def address_mask(asize: int) -> int:
    if asize == 8:
        return -1
    if asize == 4:
        return 0xFFFFFFFF
    return 0xFFFF


@native
def write_masked(hva: int, value: int, asize: int) -> None:
    """Write a string register with the address size's rules: 4 zero-extends, 2 keeps the upper part."""
    if asize == 8:
        st64(hva, value)
    elif asize == 4:
        st64(hva, value & 0xFFFFFFFF)
    else:
        st16(hva, value)


@native
def linear(env: int, base: int, offset: int, mask: int) -> int:
    """gva of a string operand; wraps to 32 bits outside 64-bit mode."""
    gva = base + (offset & mask)
    if not ld32(env + MODE) & CODE64_MODE:
        gva &= 0xFFFFFFFF
    return gva


@native
def es_base(env: int) -> int:
    """ES has no base in 64-bit mode."""
    if ld32(env + MODE) & CODE64_MODE:
        return 0
    return ld64(env + SEG_BASE + 8 * ES)


@native
def advance(env: int, register: int, elements: int, step: int, mask: int, asize: int) -> None:
    write_masked(env + register, (ld64(env + register) + elements * step) & mask, asize)


@native
def at_most(count: int, left: int) -> int:
    """`count` elements, or the `left` ones; `left` may have its top bit set: it is more than any piece then."""
    return left if left > 0 and left < count else count


@native
def piece(gva: int, offset: int, mask: int, size: int, step: int) -> int:
    """How many whole elements from gva on, in the direction of step, lie in its page and before the offset wraps."""
    if step > 0:
        room = PAGE - (gva & (PAGE - 1))
        if mask != -1:
            left = mask + 1 - (offset & mask)
            if left < room:
                room = left
        return room // size
    # Downwards the first element's bytes are at gva .. gva + size - 1; those below it come next.
    if (gva & (PAGE - 1)) + size > PAGE:
        return 0
    room = gva & (PAGE - 1)
    if mask != -1 and (offset & mask) < room:
        room = offset & mask
    return room // size + 1


@native
def copy_elements(to: int, source: int, count: int, size: int, step: int) -> None:
    """`count` elements one after the other from `source` to `to` (hvas), as the hardware does where they overlap."""
    total = count * size
    if step > 0:
        if to <= source or to >= source + total:
            memmove(to, source, total)
            return
        distance = to - source
        if distance >= size:
            # Forward into its own source: the first `distance` bytes repeat, so what is laid may be copied again.
            done = 0
            while done < total:
                part = distance + done
                if part > total - done:
                    part = total - done
                memcpy(to + done, source, part)
                done += part
            return
        n = 0
        while n < count:
            st_sized(to + n * size, size, ld_sized(source + n * size, size))
            n += 1
        return
    low_to = to - (count - 1) * size
    low_source = source - (count - 1) * size
    if low_to >= low_source or low_to + total <= low_source:
        memmove(low_to, low_source, total)
        return
    n = 0
    while n < count:
        st_sized(to - n * size, size, ld_sized(source - n * size, size))
        n += 1


@native
def fill(to: int, value: int, count: int, size: int) -> None:
    """`count` elements of `value` from `to` upwards."""
    pattern = value
    if size == 1:
        memset(to, value, count)
        return
    if size == 2:
        pattern = (value & 0xFFFF) * 0x0001000100010001
    elif size == 4:
        pattern = (value & 0xFFFFFFFF) | (value & 0xFFFFFFFF) << 32
    if pattern == (value & 0xFF) * 0x0101010101010101:
        memset(to, value, count * size)
        return
    total = count * size
    n = 0
    while n + 8 <= total:
        st64(to + n, pattern)
        n += 8
    while n < total:
        st_sized(to + n, size, value)
        n += size


@exported
def helper_x86_rep_movs(env: int, size: int, asize: int, base: int) -> int:
    """REP MOVS: RCX elements from base:RSI to ES:RDI."""
    mask = address_mask(asize)
    step = ld64(env + DF) * size
    index = ld32(env + MMU_INDEX)
    to_base = es_base(env)
    while True:
        left = ld64(env + RCX) & mask
        if left == 0:
            return 0
        source = linear(env, base, ld64(env + RSI), mask)
        to = linear(env, to_base, ld64(env + RDI), mask)
        count = piece(source, ld64(env + RSI), mask, size, step)
        count = at_most(least(count, piece(to, ld64(env + RDI), mask, size, step)), left)
        from_hva = 0
        to_hva = 0
        if count > 0:
            from_hva = tlb_probe(env, source, READ, index)
            if from_hva == -1:
                return 0
            to_hva = tlb_probe(env, to, WRITE, index)
            if to_hva == -1:
                return 0
        if from_hva != 0 and to_hva != 0:
            copy_elements(to_hva, from_hva, count, size, step)
        else:
            count = 1
            value = load_as(env, source, size, index)
            if failed(env):
                return 0
            store_as(env, to, size, value, index)
            if failed(env):
                return 0
        advance(env, RSI, count, step, mask, asize)
        advance(env, RDI, count, step, mask, asize)
        write_masked(env + RCX, left - count, asize)
        if left == count:
            return 0
        if ld32(env + EXIT_REQUEST):
            return 1


@exported
def helper_x86_rep_stos(env: int, size: int, asize: int) -> int:
    """REP STOS: RCX elements of AL, AX, EAX, RAX to ES:RDI."""
    mask = address_mask(asize)
    step = ld64(env + DF) * size
    index = ld32(env + MMU_INDEX)
    to_base = es_base(env)
    value = ld64(env + RAX)
    while True:
        left = ld64(env + RCX) & mask
        if left == 0:
            return 0
        to = linear(env, to_base, ld64(env + RDI), mask)
        count = at_most(piece(to, ld64(env + RDI), mask, size, step), left)
        hva = 0
        if count > 0:
            hva = tlb_probe(env, to, WRITE, index)
            if hva == -1:
                return 0
        if hva != 0:
            if step < 0:
                hva -= (count - 1) * size
            fill(hva, value, count, size)
        else:
            count = 1
            store_as(env, to, size, value, index)
            if failed(env):
                return 0
        advance(env, RDI, count, step, mask, asize)
        write_masked(env + RCX, left - count, asize)
        if left == count:
            return 0
        if ld32(env + EXIT_REQUEST):
            return 1


@native
def set_accumulator(env: int, value: int, size: int) -> None:
    if size == 8:
        st64(env + RAX, value)
    elif size == 4:
        st64(env + RAX, value & 0xFFFFFFFF)
    elif size == 2:
        st16(env + RAX, value)
    else:
        st8(env + RAX, value)


@exported
def helper_x86_rep_lods(env: int, size: int, asize: int, base: int) -> int:
    """REP LODS: the accumulator is loaded RCX times."""
    mask = address_mask(asize)
    step = ld64(env + DF) * size
    index = ld32(env + MMU_INDEX)
    while True:
        left = ld64(env + RCX) & mask
        if left == 0:
            return 0
        value = load_as(env, linear(env, base, ld64(env + RSI), mask), size, index)
        if failed(env):
            return 0
        set_accumulator(env, value, size)
        advance(env, RSI, 1, step, mask, asize)
        write_masked(env + RCX, left - 1, asize)
        if left == 1:
            return 0
        if ld32(env + EXIT_REQUEST):
            return 1
