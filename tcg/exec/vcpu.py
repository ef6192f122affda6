"""One vCPU: its native structs, the callbacks that native code makes, the thread's outer loop.

`run` is the body of the vCPU's host thread: it stays in `cpu_exec` (no GIL) until native code returns for a reason that
concerns Python: halted, stop requested, shutdown, host error. Requests from other threads (interrupts, stop) are an
atomic OR into env.interrupt_request, a store to env.exit_request, and a wake-up if the vCPU is halted.

Locks: callbacks that touch devices are the handlers' business (they take the machine lock); translation callbacks are
made with tb_lock held by native code.
"""

import ctypes
import threading
import time
from collections.abc import Callable
from enum import Enum

from tcg.exec.machine import NativeMachine
from tcg.exec.memory_map import Mapping
from tcg.runtime.layout import (
    CPU,
    ENV_LIMIT,
    JC_BYTES,
    N_JUMP_CACHES,
    N_TLBS,
    TLB_BYTES,
    ExitReason,
    Interrupt,
)
from tcg.runtime.struct import Struct, View

Handler = Callable[[int, int, int], int]
_CALLBACK_TYPE = ctypes.CFUNCTYPE(
    ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64
)
_M64 = (1 << 64) - 1


class StopCause(Enum):
    """Why `VCpu.run` returned."""

    STOPPED = "stopped"
    SHUTDOWN = "shutdown"
    HOST_ERROR = "host error"


def signed(value: int) -> int:
    """A 64-bit value as ctypes' c_int64 takes it."""
    return value - (1 << 64) if value >> 63 else value


class VCpu:
    """See the module. `env`: the guest's state struct; `handlers`: Python's answers by Callback kind."""

    def __init__(self, machine: NativeMachine, env: Struct, index: int = 0) -> None:
        self.machine = machine
        self.index = index
        runtime = machine.runtime
        self._env_memory = Mapping(ENV_LIMIT)
        self._cpu_memory = Mapping(CPU.size)
        self._tlb_memory = Mapping(N_TLBS * TLB_BYTES)
        self._jc_memory = Mapping(N_JUMP_CACHES * JC_BYTES)
        self.env = View(env, self._env_memory.hva)
        self.cpu = View(CPU, self._cpu_memory.hva)
        self.handlers: dict[int, Handler] = {}
        self.error: BaseException | None = None
        self.halted_seconds = 0.0
        self._wake = threading.Condition()
        self._requests = 0  # counts requests: a halted vCPU sleeps until it changes
        self._callback = _CALLBACK_TYPE(self._called)
        self.env.set("cpu", self.cpu.address)
        self.cpu.set("machine", machine.view.address)
        self.cpu.set("env", self.env.address)
        self.cpu.set("index", index)
        self.cpu.set("callback", ctypes.cast(self._callback, ctypes.c_void_p).value or 0)
        runtime.call("cpu_init", self.cpu.address, self._tlb_memory.hva, self._jc_memory.hva)
        machine.add_cpu(self.cpu.address)
        self._request = runtime.function("cpu_request", 2)
        self._exec = runtime.function("cpu_exec", 1)

    # --- native code calls in -----------------------------------------------------------------------------------------
    def _called(self, kind: int, _env: int, a: int, b: int, c: int) -> int:
        try:
            return self.handlers[kind](a, b, c)
        except BaseException as error:  # our bug, never the guest's: stop the machine loudly
            if self.error is None:
                self.error = error
            self.env.set("exit_reason", ExitReason.HOST_ERROR)
            self.env.set("exception", 1)
            self.request(Interrupt.STOP)
            return 0

    # --- requests from any thread -------------------------------------------------------------------------------------
    def request(self, bits: int) -> None:
        """Set bits of Interrupt; the vCPU sees them within one block, or wakes up."""
        self._request(self.env.address, bits)
        with self._wake:
            self._requests += 1
            self._wake.notify_all()

    def withdraw(self, bits: int) -> None:
        """Clear bits of Interrupt that are not wanted any more."""
        self.machine.runtime.call("cpu_withdraw", self.env.address, bits)

    # --- the vCPU's thread --------------------------------------------------------------------------------------------
    def run(self) -> StopCause:
        """Execute until something stops the vCPU."""
        while True:
            seen = self._requests
            reason = self._exec(self.env.address)
            if self.error is not None or reason == ExitReason.HOST_ERROR:
                return StopCause.HOST_ERROR
            if reason == ExitReason.HALT:
                self._wait(seen)
            elif reason == ExitReason.SHUTDOWN:
                return StopCause.SHUTDOWN
            elif reason == ExitReason.STOP:
                self.withdraw(Interrupt.STOP)
                return StopCause.STOPPED
            elif reason == ExitReason.CODE_BUFFER_FULL:
                self.machine.flush()

    def _wait(self, seen: int) -> None:
        """Sleep until a request newer than the first `seen` ones is made (one that is held off does not count)."""
        start = time.perf_counter()
        with self._wake:
            while self._requests == seen:
                self._wake.wait()
        self.halted_seconds += time.perf_counter() - start

    def __repr__(self) -> str:
        return f"<vCPU {self.index} pc={self.env.get('pc'):#x}>"
