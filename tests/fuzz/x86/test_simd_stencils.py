"""MMX and SSE instructions: compiled stencils against the reference interpreter, memory and MXCSR included."""

import ctypes
import functools
import platform
import random

import pytest
from unit.backends.llvm.laying import Machine

from frontends.x86.state import STATE
from fuzz.x86.cases import Case, Template, aim, cases_of, expand
from fuzz.x86.ours import MODE64, Env, Ours, block_of, differences, hole_values
from fuzz.x86.simd import CHAPTERS, prepare, simd_ours
from fuzz.x86.state import CODE, DATA, DATA_SIZE, Result, State, random_state
from tcg.exec.forms import Pattern, Stencil, Variant
from tcg.opt.pipeline import optimize
from tcg.runtime.layout import ExitReason

if platform.machine() != "x86_64":
    pytest.skip("stencils for x86-64 hosts", allow_module_level=True)

from backends.llvm.stencils import StencilCompiler

_PAGE = 4096
_STICKY = 0x3F
_VECTORS = {"unaligned": 13, "outside": 14}


class StencilCpu:
    """Runs one stencil on a State. Accesses that miss the TLB (page crossings, faults) come back to Python."""

    def __init__(self) -> None:
        self.machine = Machine(DATA_SIZE, DATA, STATE.size)
        self.env = Env()
        self.env.hva = self.machine.env_at
        self.env.data = memoryview((ctypes.c_char * STATE.size).from_address(self.machine.env_at)).cast("B")
        view = self.machine.view
        self._wiring = {n: view.get(n) for n in ("tlb_mask", "tlb_table", "jc_table", "host_fcw")}
        for at in range(DATA, DATA + DATA_SIZE, _PAGE):
            self.machine.map_page(at)
        self._helpers()

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
        env.put(before, MODE64)
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


_cpu = functools.cache(StencilCpu)
_ours = functools.cache(simd_ours)


def _cases(chapter: str, seed: int) -> list[Case]:
    """One encoding of every template, in another addressing shape or register each seed."""
    rng = random.Random(f"{seed} {chapter}")
    return [case for text in CHAPTERS[chapter] for one in expand(Template(text)) for case in cases_of(one, rng, 1)]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_stencils_agree(chapter: str, seed: int, states: int) -> None:
    ours: Ours = _ours()
    rng = random.Random(f"{seed} {chapter} states")
    cases = _cases(chapter, seed)
    patterns = [ours.decode(case.code, CODE, MODE64) for case in cases]
    for variant in (Variant(), Variant(status_live=False)):
        blocks = [(p.form.name, optimize(block_of(p, variant))) for p in patterns]
        stencils = StencilCompiler().compile(blocks)
        for case, pattern, stencil in zip(cases, patterns, stencils, strict=True):
            for _ in range(max(2, states // 5)):
                before = random_state(rng)
                aim(case, before, rng)
                prepare(chapter, case, before, rng)
                want = ours.step(pattern, case.code, CODE, MODE64, before, variant)
                got = _cpu().step(stencil, pattern, case.code, CODE, before)
                wrong = differences(got, want, 0x8D5)
                assert not wrong, f"{case.text} ({case.code.hex()}) seed {seed}: {wrong}"
