"""INS and OUTS, once or repeated (see `strings`)."""

from frontends.x86.helpers.access import failed
from frontends.x86.helpers.env import DF, EXIT_REQUEST, MMU_INDEX, RCX, RDI, RDX, RSI
from frontends.x86.helpers.ports import port_allowed
from frontends.x86.helpers.runtime import ask, load_as, store_as, tlb_probe
from frontends.x86.helpers.strings import (
    PAGE,
    PORT_READ,
    PORT_WRITE,
    WRITE,
    address_mask,
    advance,
    es_base,
    linear,
    write_masked,
)
from tcg.runtime.memory import exported, ld32, ld64


@exported
def helper_x86_ins(env: int, size: int, asize: int, rep: int) -> int:
    """INS, REP INS: from port DX to ES:RDI. The destination is known to be writable before the port is read."""
    mask = address_mask(asize)
    step = ld64(env + DF) * size
    index = ld32(env + MMU_INDEX)
    port = ld64(env + RDX) & 0xFFFF
    to_base = es_base(env)
    while True:
        left = ld64(env + RCX) & mask
        if rep and left == 0:
            return 0
        if not port_allowed(env, port, size):
            return 0
        to = linear(env, to_base, ld64(env + RDI), mask)
        if tlb_probe(env, to, WRITE, index) == -1:
            return 0
        if (to & (PAGE - 1)) + size > PAGE and tlb_probe(env, (to & -PAGE) + PAGE, WRITE, index) == -1:
            return 0
        store_as(env, to, size, ask(env, PORT_READ, port, size, 0), index)
        if failed(env):
            return 0
        advance(env, RDI, 1, step, mask, asize)
        if not rep:
            return 0
        write_masked(env + RCX, left - 1, asize)
        if left == 1:
            return 0
        if ld32(env + EXIT_REQUEST):
            return 1


@exported
def helper_x86_outs(env: int, size: int, asize: int, base: int, rep: int) -> int:
    """OUTS, REP OUTS: from base:RSI to port DX."""
    mask = address_mask(asize)
    step = ld64(env + DF) * size
    index = ld32(env + MMU_INDEX)
    port = ld64(env + RDX) & 0xFFFF
    while True:
        left = ld64(env + RCX) & mask
        if rep and left == 0:
            return 0
        if not port_allowed(env, port, size):
            return 0
        value = load_as(env, linear(env, base, ld64(env + RSI), mask), size, index)
        if failed(env):
            return 0
        ask(env, PORT_WRITE, port, size, value)
        if failed(env):
            return 0
        advance(env, RSI, 1, step, mask, asize)
        if not rep:
            return 0
        write_masked(env + RCX, left - 1, asize)
        if left == 1:
            return 0
        if ld32(env + EXIT_REQUEST):
            return 1
