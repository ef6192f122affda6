"""Port I/O with its permission checks (SDM volume 1, 19.5), and INS, OUTS."""

from frontends.x86.helpers.access import failed, raise_gp, system_load
from frontends.x86.helpers.env import AT_P, SEG_ATTR, SEG_BASE, SEG_LIMIT, TR
from frontends.x86.helpers.privileged import io_privileged
from frontends.x86.helpers.runtime import ask
from tcg.runtime.layout import Callback
from tcg.runtime.memory import exported, ld32, ld64, native

PORT_READ, PORT_WRITE = int(Callback.PORT_READ), int(Callback.PORT_WRITE)
TSS32 = 0x800  # type bit 3: a 32-bit or 64-bit TSS
IO_MAP_BASE = 0x66


@native
def port_allowed(env: int, port: int, size: int) -> int:
    """1 if CPL <= IOPL or the TSS's bitmap lets all `size` ports through; else a fault is left."""
    if io_privileged(env):
        return 1
    attr = ld32(env + SEG_ATTR + 4 * TR)
    limit = ld32(env + SEG_LIMIT + 4 * TR)
    if not attr & AT_P or not attr & TSS32 or limit < 103:
        return raise_gp(env, 0)
    base = ld64(env + SEG_BASE + 8 * TR)
    offset = system_load(env, base + IO_MAP_BASE, 2)
    if failed(env):
        return 0
    offset += port >> 3
    if offset + 1 > limit:
        return raise_gp(env, 0)
    bits = system_load(env, base + offset, 2)
    if failed(env):
        return 0
    if (bits >> (port & 7)) & ((1 << size) - 1):
        return raise_gp(env, 0)
    return 1


@exported
def helper_x86_in(env: int, port: int, size: int) -> int:
    """IN: `size` bytes from the port, zero-extended."""
    port &= 0xFFFF
    if not port_allowed(env, port, size):
        return 0
    return ask(env, PORT_READ, port, size, 0)


@exported
def helper_x86_out(env: int, port: int, value: int, size: int) -> None:
    port &= 0xFFFF
    if port_allowed(env, port, size):
        ask(env, PORT_WRITE, port, size, value & ((1 << 8 * size) - 1))
