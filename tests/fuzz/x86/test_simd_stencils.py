"""MMX and SSE instructions: compiled stencils against the reference interpreter, memory and MXCSR included."""

import functools
import platform
import random

import pytest

from fuzz.x86.cases import Case, Template, aim, cases_of, expand
from fuzz.x86.ours import MODE64, Ours, block_of, differences
from fuzz.x86.simd import CHAPTERS, prepare, simd_ours
from fuzz.x86.state import CODE, random_state
from tcg.exec.forms import Variant
from tcg.opt.pipeline import optimize

if platform.machine() != "x86_64":
    pytest.skip("stencils for x86-64 hosts", allow_module_level=True)

from backends.llvm.stencils import StencilCompiler
from fuzz.x86.simd_stencils import StencilCpu

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
