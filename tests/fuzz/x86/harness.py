"""The differential run of one instruction: random states through our IR (all variants) and outside judges, compared.

    problems = fuzz(Template("add {rm32},{r32}"), seed=1, states=25)

A judge's known mistakes are in `differences.md`; the tests mask them by name there.
"""

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass

from fuzz.x86.cases import Case, Template, aim, cases_of, expand
from fuzz.x86.oracles import host_cpu, unicorn_cpu
from fuzz.x86.ours import MODE32, MODE64, Ours, SpecError, differences
from fuzz.x86.state import CODE, Result, State, random_state
from fuzz.x86.stencils import StencilRunner
from tcg.exec.forms import Pattern, Variant

Prepare = Callable[[Case, State, random.Random], None]
Judge = Callable[[Case, State, Result, Result], int]


@dataclass(frozen=True, slots=True)
class Problem:
    case: Case
    seed: int
    judge: str
    what: list[str]
    before: State

    def __str__(self) -> str:
        regs = " ".join(f"{i}:{r:x}" for i, r in enumerate(self.before.regs))
        return (
            f"{self.case.text} ({self.case.code.hex()}) seed {self.seed} against {self.judge}: {'; '.join(self.what)}\n"
            f"    before: {regs} flags {self.before.flags:x} lazy {self.before.lazy}"
        )


_OURS: list[Ours] = []
_WINDOW = 0x1000  # small, so that pc-relative operands of any pc reach the data
_NEXT_PC = {True: CODE, False: CODE}


def ours() -> Ours:
    if not _OURS:
        _OURS.append(Ours())
    return _OURS[0]


def _fresh_pc(code64: bool) -> int:
    """A place where this Unicorn has not seen code yet."""
    pc = _NEXT_PC[code64]
    if pc > CODE + _WINDOW - 64:
        unicorn_cpu(code64).reset()
        pc = CODE
    _NEXT_PC[code64] = pc + 32
    return pc


def fuzz(
    template: Template,
    seed: int,
    states: int,
    *,
    prepare: Prepare | None = None,
    unicorn: bool = True,
    host: bool = True,
    fpu: bool = False,
    undefined: Judge | None = None,
    unicorn_wrong: Callable[[Case], bool] | None = None,
    stencil: bool = True,
    more_mode: int = 0,
    ours_: Ours | None = None,
) -> list[Problem]:
    """Problems found; empty: all agree.

    states: how many for each expansion of the template, over several encodings. prepare: adjusts each random state
    after the memory operand was aimed. fpu: compare MXCSR and x87 too. undefined: more flags not to compare, by case
    and state (-1: the whole result is undefined). unicorn_wrong: cases not to ask Unicorn about (docs/differences.md).
    more_mode: Mode bits besides the code size's.
    """
    problems: list[Problem] = []
    for one in expand(template):
        rng = random.Random(f"{seed} {one.text}")
        per_case = max(1, min(5, states // 5))
        for case in cases_of(one, rng, max(1, states // per_case // len(one.modes))):
            pc = _fresh_pc(case.code64)
            for _ in range(per_case):
                before = random_state(rng, code64=case.code64)
                aim(case, before, rng)
                if prepare is not None:
                    prepare(case, before, rng)
                ask = unicorn and one.unicorn and not (unicorn_wrong is not None and unicorn_wrong(case))
                judges = Judges(ask, host, stencil, fpu, undefined, more_mode)
                found = run_case(case, before, pc, seed, rng, judges, ours_ or ours())
                if found:
                    problems += found
                    break
    return problems


@functools.cache
def stencils() -> StencilRunner:
    return StencilRunner()


def _against_stencil(
    pattern: Pattern, case: Case, pc: int, mode: int, before: State, result: Result, fpu: bool
) -> list[str]:
    """Interpreter and stencil must agree on everything, with flags live and dead."""
    runner = stencils()
    for variant in (Variant(), Variant(False, 0)):
        mine = runner.step(pattern, case.code, pc, mode, before, variant)
        wrong = differences(result, mine, 0x8D5 if variant.status_live else 0, fpu=fpu)
        if wrong:
            return [f"{variant}", *wrong]
    return []


@dataclass(frozen=True, slots=True)
class Judges:
    """Whom to ask about a case, and what to overlook: see fuzz."""

    unicorn: bool
    host: bool
    stencil: bool
    fpu: bool
    undefined: Judge | None
    more_mode: int


def run_case(
    case: Case, before: State, pc: int, seed: int, rng: random.Random, judges_: Judges, ours_: Ours
) -> list[Problem]:
    fpu, undefined = judges_.fpu, judges_.undefined
    mode = (MODE64 if case.code64 else MODE32) | judges_.more_mode
    pattern = ours_.decode(case.code, pc, mode)
    try:
        result = ours_.check_form(pattern, case.code, pc, mode, before, rng)
    except SpecError as error:
        return [Problem(case, seed, "itself", [str(error)], before)]
    problems = []
    if judges_.stencil:
        what = _against_stencil(pattern, case, pc, mode, before, result, fpu)
        if what:
            problems.append(Problem(case, seed, "stencil", what, before))
    judges: list[tuple[str, Result]] = []
    if judges_.unicorn:
        judges.append(("unicorn", unicorn_cpu(case.code64).step(case.code, pc, before)))
    cpu = host_cpu() if judges_.host and case.host and result.fault < 0 else None
    if cpu is not None:
        judges.append(("host", cpu.step(case.code, pc, before)))
    for name, expected in judges:
        mask = 0x8D5 & ~case.undefined
        if undefined is not None:
            more = undefined(case, before, result, expected)
            if more < 0:
                continue
            mask &= ~more
        wrong = differences(result, expected, mask, fpu=fpu) if result.fault < 0 or expected.fault < 0 else []
        if not wrong and result.fault != expected.fault:
            wrong = [f"fault {result.fault} != {expected.fault}"]
        if wrong:
            problems.append(Problem(case, seed, name, wrong, before))
    return problems
