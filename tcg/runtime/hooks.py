"""What the run-time calls but does not define: the guest's hooks, the backend's gates, Python.

A guest binds its hooks with `bind_hook("guest_translate", "x86_translate")` where its native modules are registered.
"""

from tcg.runtime.layout import CPU, ENV, STATS
from tcg.runtime.memory import external, ld64, native, rdtsc, st64

_ENV_CPU = ENV.offset("cpu")
_CALLBACK = CPU.offset("callback")
_STATS = CPU.offset("stats")
_CALLBACKS = _STATS + STATS.offset("callbacks")
_CYCLES = _STATS + STATS.offset("callback_cycles")


@external("guest_translate")
def guest_translate(env: int, gva: int, access: int, mmu_index: int) -> int:
    """Walk the guest's page tables (access: 0 read, 1 write, 2 fetch).

    0: walk_gpa, walk_prot, walk_size of the CPU struct are set; otherwise the guest exception is in env.
    """
    raise NotImplementedError


@external("guest_deliver")
def guest_deliver(env: int) -> int:
    """Deliver the exception in env; 0, or 1 with exit_reason set (shutdown) in env."""
    raise NotImplementedError


@external("guest_take_interrupt")
def guest_take_interrupt(env: int) -> int:
    """Take what interrupt_request asks for, if the guest's state allows it now.

    0: nothing to take now; 1: taken, env.pc is the handler; 2: not before the next instruction (ask again after it);
    3: env.exit_reason says why the vCPU stops.
    """
    raise NotImplementedError


@external("guest_step")
def guest_step(env: int) -> int:
    """After an instruction in a step mode: raise the guest's single-step exception (0, or as guest_deliver)."""
    raise NotImplementedError


@external("callout")
def callout(code: int, kind: int, env: int, a: int, b: int, c: int) -> int:
    """The gate out of JIT code: calls the C function `code` with the outside world's floating-point modes."""
    raise NotImplementedError


@external("enter")
def enter(env: int, code: int) -> int:
    """The gate into JIT code: runs from `code` until something leaves. The result means nothing."""
    raise NotImplementedError


@native
def ask(env: int, kind: int, a: int, b: int, c: int) -> int:
    """Call back into Python; the answer. An exception there leaves HOST_ERROR in env."""
    cpu = ld64(env + _ENV_CPU)
    start = rdtsc()
    answer = callout(ld64(cpu + _CALLBACK), kind, env, a, b, c)
    st64(cpu + _CALLBACKS, ld64(cpu + _CALLBACKS) + 1)
    st64(cpu + _CYCLES, ld64(cpu + _CYCLES) + rdtsc() - start)
    return answer
