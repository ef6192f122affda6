"""tb_lock: one spin lock over code generation, jump patching and invalidation. Look-ups never take it.

The holder may be inside a callback that waits for the GIL, so nobody may wait for the lock while holding the GIL:
Python calls exported functions that lock through ctypes' ordinary (GIL-releasing) function types.
"""

from tcg.runtime.layout import MACHINE
from tcg.runtime.memory import cas32, native, pause, primitive, store32_release

_TB_LOCK = MACHINE.offset("tb_lock")


@primitive("%r = call i32 @sched_yield()\nret ptr null")
def sched_yield() -> None:
    """Let another thread of the host run."""


@native
def tb_lock(machine: int) -> None:
    spins = 0
    while cas32(machine + _TB_LOCK, 0, 1) != 0:
        spins += 1
        if spins & 127 == 0:
            sched_yield()
        pause()


@native
def tb_unlock(machine: int) -> None:
    store32_release(machine + _TB_LOCK, 0)
