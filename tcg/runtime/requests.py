"""Requests to a vCPU from any thread: bits of env.interrupt_request, then the word that each block head tests."""

from tcg.runtime.layout import ENV
from tcg.runtime.memory import atomic_and32, atomic_or32, exported, rdtsc, xchg32

_EXIT_REQUEST = ENV.offset("exit_request")
_INTERRUPT_REQUEST = ENV.offset("interrupt_request")


@exported
def cpu_request(env: int, bits: int) -> None:
    """Set bits of Interrupt; a vCPU in JIT code leaves it within one block."""
    atomic_or32(env + _INTERRUPT_REQUEST, bits)
    xchg32(env + _EXIT_REQUEST, 1)


@exported
def cpu_withdraw(env: int, bits: int) -> None:
    """Clear bits of Interrupt."""
    atomic_and32(env + _INTERRUPT_REQUEST, ~bits)


@exported
def host_tsc() -> int:
    """The host's time-stamp counter."""
    return rdtsc()
