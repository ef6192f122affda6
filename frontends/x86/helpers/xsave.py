"""FXSAVE and XSAVE with kin (SDM volume 1, 10.5, 13.4 to 13.8).

Components are never found to be in their initial configuration: XSAVEOPT and XSAVEC write all that is asked for.
"""

from frontends.x86.helpers.access import raise_exception, raise_gp, raise_ud
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
    FPU_TAGS,
    FPU_TOP,
    MODE,
    NM,
    RAX,
    STATE_IMAGE,
    XCR0,
    XMM,
    XMM_SIZE,
)
from frontends.x86.helpers.fpu import (
    MXCSR_DEFAULT,
    MXCSR_VALID,
    init_x87,
    read_fsw,
    read_mxcsr,
    set_fcw,
    write_fsw,
    write_mxcsr,
)
from frontends.x86.helpers.fpu_images import fetch_image, store_image
from tcg.runtime.memory import exported, ld8, ld16, ld32, ld64, memcpy, memset, native, st8, st16, st32, st64

XSTATE_X87, XSTATE_SSE = 1, 2
HEADER, XSAVE_SIZE = 512, 576
FXSAVE_USED = 416  # the rest of the 512 bytes is not written


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
