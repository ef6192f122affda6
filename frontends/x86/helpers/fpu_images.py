"""FSTENV and FSAVE images; the way of any state image to and from guest memory (SDM volume 1, 8.1.10).

An image is put together in env.state_image and goes to guest memory, or comes from there, in one piece: nothing is
changed when an access faults.
"""

from frontends.x86.helpers.access import failed
from frontends.x86.helpers.env import (
    FPREGS,
    FPU_CONTROL,
    FPU_DP,
    FPU_IP,
    FPU_OPCODE,
    FPU_TAGS,
    FPU_TOP,
    MMU_INDEX,
    STATE_IMAGE,
)
from frontends.x86.helpers.fpu import fpu_available, full_tag, init_x87, read_fsw, set_fcw, write_fsw
from frontends.x86.helpers.runtime import load_as, st_sized, store_as, tlb_probe
from tcg.runtime.memory import exported, ld16, ld32, ld64, memcpy, native, st8, st16, st32, st64

READ, WRITE = 0, 1


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
