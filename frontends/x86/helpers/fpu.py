"""Images of the x87 and SSE state in memory, MXCSR (SDM volume 1, 8.1.10, 10.5, 13.4 to 13.8; volume 2, FXSAVE ...).

An image is put together in env.state_image and goes to guest memory, or comes from there, in one piece: nothing is
changed when an access faults. fpu_status is FSW without TOP; ES and B in it follow from the exceptions that the
control word leaves unmasked.

MXCSR: env.mxcsr has the control bits as the guest wrote them, the host's own MXCSR (in force while JIT code and its
helpers run) has the sticky flags, with all exceptions masked. Components are never found to be in their initial
configuration: XSAVEOPT and XSAVEC write all that is asked for.
"""

from frontends.x86.helpers.access import failed, raise_exception, raise_gp, raise_ud
from frontends.x86.helpers.env import (
    CODE64_MODE,
    CPL,
    CR0,
    CR0_EM,
    CR0_TS,
    CR4,
    CR4_OSXSAVE,
    EFER,
    EFER_FFXSR,
    FPREGS,
    FPU_CONTROL,
    FPU_DP,
    FPU_IP,
    FPU_OPCODE,
    FPU_STATUS,
    FPU_TAGS,
    FPU_TOP,
    HOST_FCW,
    MMU_INDEX,
    MODE,
    MXCSR,
    NM,
    RAX,
    STATE_IMAGE,
    XCR0,
    XMM,
    XMM_SIZE,
)
from frontends.x86.helpers.mode import x86_update_mode
from frontends.x86.helpers.runtime import load_as, st_sized, store_as, tlb_probe
from tcg.runtime.memory import exported, external, ld8, ld16, ld32, ld64, memcpy, memset, native, st8, st16, st32, st64

MXCSR_FLAGS = 0x3F
MXCSR_MASKS = 0x1F80
MXCSR_DEFAULT = 0x1F80
MXCSR_VALID = 0xFFFF
FCW_DEFAULT = 0x37F
FSW_ES_B = 0x8080
XSTATE_X87, XSTATE_SSE = 1, 2
LEGACY_SIZE, HEADER, XSAVE_SIZE = 512, 512, 576
FXSAVE_USED = 416  # the rest of the 512 bytes is not written
READ, WRITE = 0, 1


@external("mxcsr_get")
def mxcsr_get() -> int:
    """The host's MXCSR (a gate)."""
    return MXCSR_DEFAULT


@external("mxcsr_set")
def mxcsr_set(value: int) -> int:
    return 0


# --- image to and from guest memory -----------------------------------------------------------------------------------
@native
def fetch_image(env: int, gva: int, at: int, size: int) -> int:
    """Copy `size` (a multiple of 2) bytes from gva + at into state_image + at; 0 with a fault left."""
    index = ld32(env + MMU_INDEX)
    gva += at
    image = env + STATE_IMAGE + at
    if (gva & 4095) + size <= 4096:
        hva = tlb_probe(env, gva, READ, index)
        if hva == -1:
            return 0
        if hva != 0:
            memcpy(image, hva, size)
            return 1
    done = 0
    while done < size:
        part = 8 if size - done >= 8 else 2
        value = load_as(env, gva + done, part, index)
        if failed(env):
            return 0
        st_sized(image + done, part, value)
        done += part
    return 1


@native
def store_image(env: int, gva: int, at: int, size: int) -> int:
    """Copy state_image + at to gva + at; 0 with a fault left and nothing stored."""
    index = ld32(env + MMU_INDEX)
    gva += at
    image = env + STATE_IMAGE + at
    hva = tlb_probe(env, gva, WRITE, index)
    if hva == -1:
        return 0
    if (gva & 4095) + size <= 4096:
        if hva != 0:
            memcpy(hva, image, size)
            return 1
    elif tlb_probe(env, (gva & -4096) + 4096, WRITE, index) == -1:
        return 0
    done = 0
    while done < size:
        part = 8 if size - done >= 8 else 2
        if part == 8:
            store_as(env, gva + done, 8, ld64(image + done), index)
        else:
            store_as(env, gva + done, 2, ld16(image + done), index)
        if failed(env):
            return 0
        done += part
    return 1


# --- control and status words -----------------------------------------------------------------------------------------
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


# --- FXSAVE and XSAVE -------------------------------------------------------------------------------------------------
@native
def put_x87(env: int, wide: int) -> None:
    """Bytes 0 to 23 and 32 to 159 of the legacy region."""
    image = env + STATE_IMAGE
    st16(image, ld32(env + FPU_CONTROL))
    st16(image + 2, read_fsw(env))
    tags = 0
    for n in range(8):
        if not ld8(env + FPU_TAGS + n):
            tags |= 1 << n
    st16(image + 4, tags)
    st16(image + 6, ld32(env + FPU_OPCODE) & 0x7FF)
    if wide:
        st64(image + 8, ld64(env + FPU_IP))
        st64(image + 16, ld64(env + FPU_DP))
    else:
        st64(image + 8, ld64(env + FPU_IP) & 0xFFFFFFFF)
        st64(image + 16, ld64(env + FPU_DP) & 0xFFFFFFFF)
    top = ld32(env + FPU_TOP)
    for n in range(8):
        place = env + FPREGS + 16 * ((top + n) & 7)
        st64(image + 32 + 16 * n, ld64(place))
        st64(image + 40 + 16 * n, ld16(place + 8))


@native
def get_x87(env: int, wide: int) -> None:
    image = env + STATE_IMAGE
    set_fcw(env, ld16(image))
    write_fsw(env, ld16(image + 2))
    for n in range(8):
        st8(env + FPU_TAGS + n, 1 - ((ld8(image + 4) >> n) & 1))
    st32(env + FPU_OPCODE, ld16(image + 6) & 0x7FF)
    if wide:
        st64(env + FPU_IP, ld64(image + 8))
        st64(env + FPU_DP, ld64(image + 16))
    else:
        st64(env + FPU_IP, ld32(image + 8))
        st64(env + FPU_DP, ld32(image + 16))
    top = ld32(env + FPU_TOP)
    for n in range(8):
        place = env + FPREGS + 16 * ((top + n) & 7)
        st64(place, ld64(image + 32 + 16 * n))
        st64(place + 8, ld16(image + 40 + 16 * n))


@native
def xmm_count(env: int) -> int:
    return 16 if ld32(env + MODE) & CODE64_MODE else 8


@native
def put_xmm(env: int) -> None:
    for n in range(xmm_count(env)):
        memcpy(env + STATE_IMAGE + 160 + 16 * n, env + XMM + XMM_SIZE * n, 16)


@native
def get_xmm(env: int) -> None:
    for n in range(xmm_count(env)):
        memcpy(env + XMM + XMM_SIZE * n, env + STATE_IMAGE + 160 + 16 * n, 16)


@native
def put_mxcsr(env: int) -> None:
    st32(env + STATE_IMAGE + 24, read_mxcsr(env))
    st32(env + STATE_IMAGE + 28, MXCSR_VALID)


@native
def fx_available(env: int, gva: int, alignment: int) -> int:
    """1, or #UD by CR0.EM, #NM by CR0.TS, #GP(0) for a misaligned area."""
    cr0 = ld64(env + CR0)
    if cr0 & CR0_EM:
        raise_ud(env)
    elif cr0 & CR0_TS:
        raise_exception(env, NM, 0)
    elif gva & (alignment - 1):
        raise_gp(env, 0)
    else:
        return 1
    return 0


@native
def fast_fxsr(env: int) -> int:
    """AMD's EFER.FFXSR: 64-bit code at CPL 0 leaves the XMM registers alone."""
    if not ld64(env + EFER) & EFER_FFXSR or ld32(env + CPL) != 0:
        return 0
    return ld32(env + MODE) & CODE64_MODE


@exported
def helper_x86_fxsave(env: int, gva: int, wide: int) -> None:
    if not fx_available(env, gva, 16):
        return
    # What is not written of the 16-byte slots' padding and of XMM8..15 outside 64-bit mode keeps its bytes.
    if not fetch_image(env, gva, 0, FXSAVE_USED):
        return
    put_x87(env, wide)
    put_mxcsr(env)
    if not fast_fxsr(env):
        put_xmm(env)
    store_image(env, gva, 0, FXSAVE_USED)


@exported
def helper_x86_fxrstor(env: int, gva: int, wide: int) -> None:
    if not fx_available(env, gva, 16) or not fetch_image(env, gva, 0, FXSAVE_USED):
        return
    mxcsr = ld32(env + STATE_IMAGE + 24)
    if mxcsr & ~MXCSR_VALID:
        raise_gp(env, 0)
        return
    get_x87(env, wide)
    if not fast_fxsr(env):
        get_xmm(env)
    write_mxcsr(env, mxcsr)


@native
def requested(env: int) -> int:
    """RFBM: XCR0 and EDX:EAX (only two components exist)."""
    return ld64(env + XCR0) & ld64(env + RAX) & (XSTATE_X87 | XSTATE_SSE)


@native
def xsave_available(env: int, gva: int) -> int:
    if not ld64(env + CR4) & CR4_OSXSAVE:
        raise_ud(env)
        return 0
    if ld64(env + CR0) & CR0_TS:
        raise_exception(env, NM, 0)
        return 0
    if gva & 63:
        raise_gp(env, 0)
        return 0
    return 1


@exported
def helper_x86_xsave(env: int, gva: int, wide: int, kind: int) -> None:
    """XSAVE (kind 0), XSAVEOPT (1), XSAVEC (2): all components asked for are written, the others keep their bytes."""
    if not xsave_available(env, gva) or not fetch_image(env, gva, 0, XSAVE_SIZE):
        return
    image = env + STATE_IMAGE
    rfbm = requested(env)
    if rfbm & XSTATE_X87:
        put_x87(env, wide)
    if rfbm & XSTATE_SSE:
        put_xmm(env)
        put_mxcsr(env)
    if kind == 2:
        st64(image + HEADER, rfbm)
        st64(image + HEADER + 8, rfbm | -(1 << 63))
        memset(image + HEADER + 16, 0, 48)
    else:
        st64(image + HEADER, (ld64(image + HEADER) & ~rfbm) | rfbm)
    store_image(env, gva, 0, XSAVE_SIZE)


@exported
def helper_x86_xrstor(env: int, gva: int, wide: int) -> None:
    """XRSTOR in standard or compacted form: a component without its XSTATE_BV bit gets its initial configuration."""
    if not xsave_available(env, gva) or not fetch_image(env, gva, 0, XSAVE_SIZE):
        return
    image = env + STATE_IMAGE
    present = ld64(image + HEADER)
    layout = ld64(image + HEADER + 8)
    xcr0 = ld64(env + XCR0)
    compact = 1 if layout < 0 else 0
    bad = ld64(image + HEADER + 16) != 0
    if compact:
        components = layout & ~(-(1 << 63))
        if components & ~xcr0 or present & ~components:
            bad = True
        for n in range(24, 64, 8):
            if ld64(image + HEADER + n) != 0:
                bad = True
    elif layout != 0 or present & ~xcr0:
        bad = True
    rfbm = requested(env)
    mxcsr = ld32(image + 24)
    load_mxcsr = rfbm & XSTATE_SSE
    if compact and not present & XSTATE_SSE:
        mxcsr = MXCSR_DEFAULT
    if load_mxcsr and mxcsr & ~MXCSR_VALID:
        bad = True
    if bad:
        raise_gp(env, 0)
        return
    if rfbm & XSTATE_X87:
        if present & XSTATE_X87:
            get_x87(env, wide)
        else:
            init_x87(env)
            memset(env + FPREGS, 0, 128)
    if rfbm & XSTATE_SSE:
        if present & XSTATE_SSE:
            get_xmm(env)
        else:
            for n in range(xmm_count(env)):
                memset(env + XMM + XMM_SIZE * n, 0, 16)
    if load_mxcsr:
        write_mxcsr(env, mxcsr)


# --- FSTENV and FSAVE -------------------------------------------------------------------------------------------------
@native
def put_environment(env: int, size: int) -> None:
    """The 14- or 28-byte environment of protected mode (SDM vol. 1, figures 8-9, 8-11); selectors read 0."""
    image = env + STATE_IMAGE
    tags = 0
    for n in range(8):
        tags |= full_tag(env, n) << 2 * n
    if size == 4:
        st32(image, 0xFFFF0000 | ld32(env + FPU_CONTROL))
        st32(image + 4, 0xFFFF0000 | read_fsw(env))
        st32(image + 8, 0xFFFF0000 | tags)
        st32(image + 12, ld64(env + FPU_IP))
        st32(image + 16, (ld32(env + FPU_OPCODE) & 0x7FF) << 16)
        st32(image + 20, ld64(env + FPU_DP))
        st32(image + 24, 0xFFFF0000)
    else:
        st16(image, ld32(env + FPU_CONTROL))
        st16(image + 2, read_fsw(env))
        st16(image + 4, tags)
        st16(image + 6, ld64(env + FPU_IP))
        st16(image + 8, 0)
        st16(image + 10, ld64(env + FPU_DP))
        st16(image + 12, 0)


@native
def get_environment(env: int, size: int) -> None:
    image = env + STATE_IMAGE
    step = size
    tags = ld16(image + 2 * step)
    set_fcw(env, ld16(image))
    write_fsw(env, ld16(image + step))
    for n in range(8):
        st8(env + FPU_TAGS + n, 1 if (tags >> 2 * n) & 3 == 3 else 0)
    if size == 4:
        st64(env + FPU_IP, ld32(image + 12))
        st32(env + FPU_OPCODE, ld16(image + 18) & 0x7FF)
        st64(env + FPU_DP, ld32(image + 20))
    else:
        st64(env + FPU_IP, ld16(image + 6))
        st64(env + FPU_DP, ld16(image + 10))


@exported
def helper_x86_fnstenv(env: int, gva: int, size: int) -> None:
    """FNSTENV: then all exceptions are masked."""
    if not fpu_available(env):
        return
    put_environment(env, size)
    if store_image(env, gva, 0, 7 * size):
        set_fcw(env, ld32(env + FPU_CONTROL) | 0x3F)


@exported
def helper_x86_fldenv(env: int, gva: int, size: int) -> None:
    if fpu_available(env) and fetch_image(env, gva, 0, 7 * size):
        get_environment(env, size)


@exported
def helper_x86_fnsave(env: int, gva: int, size: int) -> None:
    """FNSAVE: the environment and the eight registers; then FNINIT."""
    if not fpu_available(env):
        return
    put_environment(env, size)
    at = env + STATE_IMAGE + 7 * size
    top = ld32(env + FPU_TOP)
    for n in range(8):
        memcpy(at + 10 * n, env + FPREGS + 16 * ((top + n) & 7), 10)
    if store_image(env, gva, 0, 7 * size + 80):
        init_x87(env)


@exported
def helper_x86_frstor(env: int, gva: int, size: int) -> None:
    if not fpu_available(env) or not fetch_image(env, gva, 0, 7 * size + 80):
        return
    get_environment(env, size)
    at = env + STATE_IMAGE + 7 * size
    top = ld32(env + FPU_TOP)
    for n in range(8):
        memcpy(env + FPREGS + 16 * ((top + n) & 7), at + 10 * n, 10)
