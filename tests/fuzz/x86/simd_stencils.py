"""A host for compiled SIMD stencils: raw env, the data region behind the in-line TLB, helpers by address.

Batches of stencils are compiled by the tests themselves; MXCSR's sticky flags are taken from the host's register.
"""

import ctypes
from collections.abc import Mapping

from unit.backends.llvm.laying import Machine

from frontends.x86.state import STATE
from fuzz.x86.ours import MODE64, Env, hole_values
from fuzz.x86.state import DATA, DATA_SIZE, Result, State
from tcg.exec.forms import Pattern, Stencil
from tcg.runtime.layout import ExitReason

_PAGE = 4096
_STICKY = 0x3F
_VECTORS = {"unaligned": 13, "outside": 14}


class StencilCpu:
    """Runs one stencil on a State. Accesses that miss the TLB come back to Python. helpers: more symbols by address."""

    def __init__(self, helpers: Mapping[str, int] | None = None) -> None:
        self.mode = MODE64
        self.cr4_clear = 0
        self.machine = Machine(DATA_SIZE, DATA, STATE.size)
        self.env = Env()
        self.env.hva = self.machine.env_at
        self.env.data = memoryview((ctypes.c_char * STATE.size).from_address(self.machine.env_at)).cast("B")
        view = self.machine.view
        self._wiring = {n: view.get(n) for n in ("tlb_mask", "tlb_table", "jc_table", "host_fcw")}
        for at in range(DATA, DATA + DATA_SIZE, _PAGE):
            self.machine.map_page(at)
        self._helpers()
        self.machine.helpers |= helpers or {}

    def _fault(self, what: str) -> int:
        self.machine.view.set("exception", 1)
        self.machine.view.set("exit_reason", ExitReason.EXCEPTION)
        self.machine.view.set("exception_index", _VECTORS[what])
        return 0

    def _helpers(self) -> None:
        machine = self.machine
        u64 = ctypes.c_uint64

        def outside(gva: int, size: int) -> bool:
            return not DATA <= gva <= DATA + DATA_SIZE - size

        def load(size: int) -> object:
            def function(env: int, gva: int) -> int:
                if outside(gva, size):
                    return self._fault("outside")
                value = int.from_bytes(machine.read_ram()[gva - DATA : gva - DATA + size], "little")
                if size == 16:
                    machine.view.set("scratch", value)
                return value & 0xFFFFFFFFFFFFFFFF

            return function

        def store(size: int) -> object:
            def function(env: int, gva: int, value: int = 0) -> None:
                if outside(gva, size):
                    self._fault("outside")
                    return
                value = machine.view.get("scratch") if size == 16 else value % (1 << 8 * size)
                ctypes.memmove(machine.ram_at + gva - DATA, value.to_bytes(size, "little"), size)

            return function

        for size in (1, 2, 4, 8):
            machine.helper(f"helper_ld{size * 8}", load(size), u64, u64)  # type: ignore[arg-type]
            machine.helper(f"helper_st{size * 8}", store(size), None, u64, u64)  # type: ignore[arg-type]
        machine.helper("helper_ld128", load(16), u64, u64)  # type: ignore[arg-type]
        machine.helper("helper_st128", store(16), None, u64)  # type: ignore[arg-type]
        machine.helper("helper_unaligned", lambda env, gva: self._fault("unaligned"), u64, u64)

    def step(self, stencil: Stencil, pattern: Pattern, code: bytes, pc: int, before: State) -> Result:
        machine, env = self.machine, self.env
        env.put(before, self.mode)
        env.set("cr4", env.get("cr4") & ~self.cr4_clear)
        for name, value in self._wiring.items():
            machine.view.set(name, value)
        machine.view.set("host_mxcsr", before.mxcsr | 0x1F80)
        machine.write_ram(before.memory)
        machine.top = 0
        machine._stub.clear()
        holes = hole_values(pattern, code, pc)
        machine.run(machine.lay([(stencil, holes)]))
        after = env.take(before)
        after.mxcsr = before.mxcsr & ~_STICKY | machine.view.get("host_mxcsr") & _STICKY
        after.memory = machine.read_ram()
        if machine.view.get("exception"):
            return Result(after, machine.view.get("pc"), machine.view.get("exception_index"))
        return Result(after, holes["next_pc"])
