"""Helpers of the x87 instructions: the guest's state to the host's x87 and back (`x87_host`), and the control word.

The frontend has made sure that no unmasked exception is pending. A store has two steps, so that it can fault with the
x87 state as it was: `x87_store` computes, guest memory is written, `x87_commit` makes the new state the guest's.

FIP and FDP are the last computing instruction's; FOP changes as the host's does (with an unmasked exception only, on
most CPUs). QUIRK: FOP's mod and r/m fields are those of the thunk for a memory operand.
"""

from frontends.x86.helpers.env import (
    FPREGS,
    FPU_CONTROL,
    FPU_DP,
    FPU_IP,
    FPU_OPCODE,
    FPU_STATUS,
    FPU_TAGS,
    FPU_TOP,
    STATE_IMAGE,
)
from frontends.x86.helpers.fpu import read_fsw, set_fcw
from frontends.x86.helpers.x87_host import FCW, FOP, FSW, FTW, OPERAND, ST0, run_x87
from tcg.ir.block import HelperDecl
from tcg.ir.types import I64, Effect, Type
from tcg.runtime.memory import exported, ld8, ld16, ld32, memcpy, memset, native, st8, st16, st32, st64

X87_HELPERS: dict[str, HelperDecl] = {}


def _helper(name: str, args: int, ret: Type | None = None) -> HelperDecl:
    decl = HelperDecl(f"x86_{name}", (I64,) * args, ret, Effect.READS_ENV | Effect.WRITES_ENV)
    X87_HELPERS[decl.name] = decl
    return decl


X87 = _helper("x87", 2)  # (thunk, pc): registers only
X87_FLAGS = _helper("x87_flags", 3, I64)  # (thunk, pc, flags) -> flags: FCMOVcc, FCOMI
X87_LOAD = _helper("x87_load", 5)  # (thunk, pc, low 64 bits, high 16 bits of the memory operand, its offset)
X87_STORE = _helper("x87_store", 1, I64)  # (thunk) -> 1 if the operand, now in env.state_image, is to be stored
X87_COMMIT = _helper("x87_commit", 2)  # (pc, offset of the memory operand)
FLDCW = _helper("fldcw", 1)  # (control word)

IMAGE = STATE_IMAGE
# Pending unmasked, these leave a memory destination alone; precision does not (SDM volume 1, 8.5).
NO_STORE = 0x1F


@native
def to_host(env: int) -> None:
    """The guest's x87 state into the image."""
    image = env + IMAGE
    tags = 0
    for n in range(8):
        if ld8(env + FPU_TAGS + n):
            tags |= 3 << 2 * n
    memset(image, 0, ST0)
    st16(image + FCW, ld32(env + FPU_CONTROL))
    st16(image + FSW, read_fsw(env))
    st16(image + FTW, tags)
    st16(image + FOP, ld32(env + FPU_OPCODE))
    top = ld32(env + FPU_TOP)
    for n in range(8):
        memcpy(image + ST0 + 10 * n, env + FPREGS + 16 * ((top + n) & 7), 10)


@native
def from_host(env: int, pc: int) -> None:
    """The image becomes the guest's x87 state; control instructions aside, pc is the last instruction's now."""
    image = env + IMAGE
    status = ld16(image + FSW)
    top = (status >> 11) & 7
    tags = ld16(image + FTW)
    st32(env + FPU_STATUS, status & 0xC7FF)
    st32(env + FPU_TOP, top)
    st32(env + FPU_OPCODE, ld16(image + FOP) & 0x7FF)
    st64(env + FPU_IP, pc)
    for n in range(8):
        st8(env + FPU_TAGS + n, 1 if (tags >> 2 * n) & 3 == 3 else 0)
        memcpy(env + FPREGS + 16 * ((top + n) & 7), image + ST0 + 10 * n, 10)


@exported
def helper_x86_x87(env: int, thunk: int, pc: int) -> None:
    to_host(env)
    run_x87(env + IMAGE, thunk, 0)
    from_host(env, pc)


@exported
def helper_x86_x87_flags(env: int, thunk: int, pc: int, flags: int) -> int:
    to_host(env)
    flags = run_x87(env + IMAGE, thunk, flags)
    from_host(env, pc)
    return flags


@exported
def helper_x86_x87_load(env: int, thunk: int, pc: int, low: int, high: int, offset: int) -> None:
    to_host(env)
    st64(env + IMAGE + OPERAND, low)
    st16(env + IMAGE + OPERAND + 8, high)
    run_x87(env + IMAGE, thunk, 0)
    from_host(env, pc)
    st64(env + FPU_DP, offset)


@exported
def helper_x86_x87_store(env: int, thunk: int) -> int:
    to_host(env)
    run_x87(env + IMAGE, thunk, 0)
    if ld16(env + IMAGE + FSW) & ~ld32(env + FPU_CONTROL) & NO_STORE:
        return 0
    return 1


@exported
def helper_x86_x87_commit(env: int, pc: int, offset: int) -> None:
    from_host(env, pc)
    st64(env + FPU_DP, offset)


@exported
def helper_x86_fldcw(env: int, value: int) -> None:
    set_fcw(env, value)
