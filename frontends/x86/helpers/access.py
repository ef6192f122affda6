"""Raising guest exceptions, and guest memory as system code sees it: with an explicit mmu index.

After every load or store here the caller tests `failed(env)`. Nothing is partly stored.
"""

from frontends.x86.helpers.env import (
    CPL,
    ERROR_CODE,
    EXCEPTION,
    EXCEPTION_INDEX,
    EXIT_REASON,
    GP,
    MMU_KERNEL,
    MMU_USER,
    REASON_EXCEPTION,
    REASON_REFLOW,
    UD,
    UNIMPLEMENTED,
    UNIMPLEMENTED_WHAT,
)
from frontends.x86.helpers.runtime import load_as, store_as
from tcg.runtime.memory import ld32, ld64, native, st32, st64


@native
def raise_exception(env: int, vector: int, error: int) -> int:
    """Leave exception `vector` in env: the block is left after the helper, the exec loop delivers it. Gives 0."""
    st32(env + EXCEPTION_INDEX, vector)
    st64(env + ERROR_CODE, error)
    st32(env + EXIT_REASON, REASON_EXCEPTION)
    st32(env + EXCEPTION, 1)
    return 0


@native
def raise_gp(env: int, error: int) -> int:
    return raise_exception(env, GP, error)


@native
def raise_ud(env: int) -> int:
    return raise_exception(env, UD, 0)


@native
def unimplemented(env: int, what: int, detail: int) -> int:
    """Count a request for something that is not there, and answer it with #GP(0)."""
    st64(env + UNIMPLEMENTED, ld64(env + UNIMPLEMENTED) + 1)
    st64(env + UNIMPLEMENTED_WHAT, what << 32 | (detail & 0xFFFFFFFF))
    return raise_exception(env, GP, 0)


@native
def failed(env: int) -> int:
    """Nonzero after an access that faulted (or any raise)."""
    return ld32(env + EXCEPTION)


@native
def leave_block(env: int, reason: int) -> None:
    """Make the block end after the helper with `reason` instead of going on."""
    st32(env + EXIT_REASON, reason)
    st32(env + EXCEPTION, 1)


@native
def reflow(env: int) -> None:
    leave_block(env, REASON_REFLOW)


@native
def cpl_index(env: int, cpl: int) -> int:
    """mmu index of an implicit or stack access at privilege `cpl`."""
    if cpl == 3:
        return MMU_USER
    return MMU_KERNEL


@native
def system_load(env: int, gva: int, size: int) -> int:
    """Load from a descriptor table or TSS: a supervisor access whatever the CPL (SDM vol. 3, 4.6.1)."""
    return load_as(env, gva, size, MMU_KERNEL)


@native
def system_store(env: int, gva: int, size: int, value: int) -> None:
    store_as(env, gva, size, value, MMU_KERNEL)


@native
def require_cpl0(env: int) -> int:
    """1 at CPL 0; else #GP(0) is raised."""
    if ld32(env + CPL) != 0:
        raise_exception(env, GP, 0)
        return 0
    return 1
