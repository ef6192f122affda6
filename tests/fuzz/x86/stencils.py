"""The stencil side of the fuzzer: one instruction's compiled stencil, laid into memory and run on the host."""

import ctypes
import pathlib
import sys
from collections.abc import Callable

from backends.llvm.gates import fixed_stencils
from backends.llvm.stencils import StencilCompiler
from frontends.x86.state import STATE
from fuzz.x86.ours import Env, block_of, frontend, hole_values
from fuzz.x86.state import DATA, DATA_SIZE, Result, State
from tcg.exec.forms import Pattern, Stencil, Variant
from tcg.opt.pipeline import optimize
from tcg.runtime.layout import GUEST_BASE, ExitReason
from tcg.runtime.native import NATIVE

sys.path.append(str(pathlib.Path(__file__).parents[2] / "unit/backends/llvm"))
from laying import Machine

_FELL_THROUGH = 0xEE
_NO_PC = 0xDEAD_0000_0000_BEEF  # in every jump cache entry: no test goes there
_U64 = ctypes.c_uint64


class StencilRunner:
    """Compiles forms as they come and runs them; the data region is behind the in-line TLB, the rest faults."""

    def __init__(self) -> None:
        frontend()
        self.compiler = StencilCompiler()
        self.machine = Machine(DATA_SIZE, DATA, STATE.size)
        self.machine.align_cold = True
        for page in range(0, DATA_SIZE, 4096):
            self.machine.map_page(DATA + page)
        self.env = Env(self.machine.env_at)
        self._stencils: dict[tuple[object, Variant], Stencil] = {}
        self._stub = fixed_stencils(self.compiler)["exit_stub"]
        self._define_helpers()
        self._exits = [self.machine.lay([(self._stub, {"target": n, "imm": n})]) for n in range(2)]
        self.machine.jc[:] = (_NO_PC, 0) * (len(self.machine.jc) // 2)
        for name in self.machine.helpers:
            self.machine._far(name, self.machine.helpers[name])
        self._top = self.machine.top

    def _define_helpers(self) -> None:
        machine = self.machine

        def fault(gva: int) -> int:
            for name, value in (("exception", 1), ("exit_reason", ExitReason.EXCEPTION), ("exception_index", 14)):
                machine.view.set(name, int(value))
            machine.view.set("fault_gva", gva)
            return 0

        def inside(gva: int, size: int) -> bool:
            return DATA <= gva <= DATA + DATA_SIZE - size

        def load(size: int) -> Callable[..., int]:
            def function(env: int, gva: int) -> int:
                if not inside(gva, size):
                    return fault(gva)
                return int.from_bytes(ctypes.string_at(machine.ram_at + gva - DATA, size), "little")

            return function

        def store(size: int) -> Callable[..., None]:
            def function(env: int, gva: int, value: int) -> None:
                if inside(gva, size):
                    data = (value % (1 << 8 * size)).to_bytes(size, "little")
                    ctypes.memmove(machine.ram_at + gva - DATA, data, size)
                else:
                    fault(gva)

            return function

        for size in (1, 2, 4, 8):
            machine.helper(f"helper_ld{8 * size}", load(size), _U64, _U64)
            machine.helper(f"helper_st{8 * size}", store(size), None, _U64, _U64)

        def load128(env: int, gva: int) -> int:
            machine.view.set("scratch", load(16)(env, gva))
            return 0

        def store128(env: int, gva: int) -> None:
            store(16)(env, gva, machine.view.get("scratch"))

        machine.helper("helper_ld128", load128, _U64, _U64)
        machine.helper("helper_st128", store128, None, _U64)
        for symbol, native in NATIVE.items():
            if symbol.startswith(("helper_x86_", "helper_unaligned")):
                result = None if native.returns == "ptr" else _U64  # what nothing returned is called there
                args = [_U64] * (len(native.args) - 1)
                machine.helper(symbol, lambda env, *a, native=native: self._call(native, env, *a), result, *args)

    @staticmethod
    def _call(native: Callable[..., int | None], env: int, *args: int) -> int | None:
        result = native(env, *args)
        return None if result is None else int(result) % 2**64

    def stencil(self, pattern: Pattern, variant: Variant) -> Stencil:
        key = (pattern.form.key, variant)
        if key not in self._stencils:
            optimized = optimize(block_of(pattern, variant))
            (self._stencils[key],) = self.compiler.compile([(pattern.form.name, optimized)])
        return self._stencils[key]

    def step(self, pattern: Pattern, code: bytes, pc: int, mode: int, before: State, variant: Variant) -> Result:
        machine, get = self.machine, self.machine.view.get
        common = machine.read_env(0, GUEST_BASE)
        self.env.put(before, mode)
        machine.write_env(0, common)
        for name in ("exception", "exit_slot"):
            machine.view.set(name, 0)
        machine.view.set("exit_reason", _FELL_THROUGH)
        machine.view.set("host_mxcsr", before.mxcsr)
        machine.write_ram(before.memory)
        machine.top = self._top
        holes = hole_values(pattern, code, pc)
        machine.run(machine.lay([(self.stencil(pattern, variant), holes)], self._exits))
        after = self.env.take(before)
        after.memory = machine.read_ram()[:DATA_SIZE]
        if get("exception"):
            return Result(after, get("pc"), get("exception_index"))
        if get("exit_reason") == _FELL_THROUGH:
            return Result(after, holes["next_pc"])
        if get("exit_reason") == ExitReason.CHAIN:
            return Result(after, holes["next_pc" if get("exit_slot") else "target"])
        return Result(after, get("pc"))
