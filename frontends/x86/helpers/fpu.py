"""x87 control and status words, MXCSR (SDM volume 1, 8.1 and 10.2.3).

fpu_status is FSW without TOP; ES and B in it follow from the exceptions that the control word leaves unmasked.

MXCSR: env.mxcsr has the control bits as the guest wrote them, the host's own MXCSR (in force while JIT code and its
helpers run) has the sticky flags, with all exceptions masked.
"""

from frontends.x86.helpers.access import raise_exception, raise_gp
from frontends.x86.helpers.env import (
    CR0,
    CR0_EM,
    CR0_TS,
    FPREGS,
    FPU_CONTROL,
    FPU_DP,
    FPU_IP,
    FPU_OPCODE,
    FPU_STATUS,
    FPU_TAGS,
    FPU_TOP,
    HOST_FCW,
    MXCSR,
    NM,
)
from frontends.x86.helpers.mode import x86_update_mode
from tcg.runtime.memory import exported, external, ld8, ld16, ld32, ld64, native, st8, st32, st64

MXCSR_FLAGS = 0x3F
MXCSR_MASKS = 0x1F80
MXCSR_DEFAULT = 0x1F80
MXCSR_VALID = 0xFFFF
FCW_DEFAULT = 0x37F
FSW_ES_B = 0x8080


@external("mxcsr_get")
def mxcsr_get() -> int:
    """The host's MXCSR (a gate)."""
    return MXCSR_DEFAULT


@external("mxcsr_set")
def mxcsr_set(value: int) -> int:
    return 0


@native
def set_fcw(env: int, value: int) -> None:
    """Load FCW: the host's (for F80 ops) gets its precision and rounding."""
    st32(env + FPU_CONTROL, (value & 0x1F3F) | 0x40)
    st32(env + HOST_FCW, (value & 0xF00) | 0x7F)
    update_summary(env)


@native
def update_summary(env: int) -> None:
    """ES and B from the pending exceptions and their masks."""
    status = ld32(env + FPU_STATUS) & ~FSW_ES_B
    if status & ~ld32(env + FPU_CONTROL) & 0x3F:
        status |= FSW_ES_B
    st32(env + FPU_STATUS, status)


@native
def read_fsw(env: int) -> int:
    return (ld32(env + FPU_STATUS) & 0xC7FF) | (ld32(env + FPU_TOP) & 7) << 11


@native
def write_fsw(env: int, value: int) -> None:
    st32(env + FPU_TOP, (value >> 11) & 7)
    st32(env + FPU_STATUS, value & 0xC7FF)
    update_summary(env)


@native
def full_tag(env: int, n: int) -> int:
    """The two-bit tag of physical register n: valid, zero, special, empty (SDM vol. 1, 8.1.7)."""
    if ld8(env + FPU_TAGS + n):
        return 3
    significand = ld64(env + FPREGS + 16 * n)
    exponent = ld16(env + FPREGS + 16 * n + 8) & 0x7FFF
    if exponent == 0 and significand == 0:
        return 1
    if exponent == 0 or exponent == 0x7FFF or significand >= 0:
        return 2
    return 0


@native
def init_x87(env: int) -> None:
    set_fcw(env, FCW_DEFAULT)
    write_fsw(env, 0)
    st32(env + FPU_OPCODE, 0)
    st64(env + FPU_IP, 0)
    st64(env + FPU_DP, 0)
    for n in range(8):
        st8(env + FPU_TAGS + n, 1)


@native
def fpu_available(env: int) -> int:
    """1, or #NM by CR0.EM and CR0.TS."""
    if ld64(env + CR0) & (CR0_EM | CR0_TS):
        raise_exception(env, NM, 0)
        return 0
    return 1


@exported
def helper_x86_fninit(env: int) -> None:
    if fpu_available(env):
        init_x87(env)


# --- MXCSR ------------------------------------------------------------------------------------------------------------
@native
def read_mxcsr(env: int) -> int:
    return (ld32(env + MXCSR) & ~MXCSR_FLAGS) | (mxcsr_get() & MXCSR_FLAGS)


@native
def write_mxcsr(env: int, value: int) -> None:
    """MXCSR becomes value (valid bits only); the host's with every exception masked. The mode may change."""
    st32(env + MXCSR, value)
    mxcsr_set((value & MXCSR_VALID) | MXCSR_MASKS)
    x86_update_mode(env)


@exported
def helper_x86_ldmxcsr(env: int, value: int) -> None:
    """LDMXCSR: #GP(0) for a reserved bit."""
    if value & 0xFFFFFFFF & ~MXCSR_VALID:
        raise_gp(env, 0)
    else:
        write_mxcsr(env, value & MXCSR_VALID)


@exported
def helper_x86_stmxcsr(env: int) -> int:
    return read_mxcsr(env)
