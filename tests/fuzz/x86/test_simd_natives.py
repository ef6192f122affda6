"""The compiled SIMD natives: unmasked exceptions of SSE arithmetic, the fallbacks for hosts without AES or SHA."""

import functools
import platform
import random

import pytest

from frontends.x86.helpers.simd_reference import REFERENCE
from frontends.x86.state import Mode
from fuzz.x86.cases import Template, cases_of
from fuzz.x86.ours import MODE64, block_of, differences
from fuzz.x86.simd import CRYPTO, prepare, simd_ours
from fuzz.x86.state import CODE, Result, random_state
from tcg.exec.forms import Variant
from tcg.opt.pipeline import optimize
from tcg.runtime.object import Runtime

if platform.machine() != "x86_64":
    pytest.skip("stencils for x86-64 hosts", allow_module_level=True)

from unit.frontends.x86.helpers.x86guest import load_runtime

from backends.llvm.host import Host, host
from backends.llvm.stencils import StencilCompiler
from fuzz.x86.simd_stencils import StencilCpu

_FALLBACKS = ("aes", "pclmul", "sha")
_ARITHMETIC = (
    *("addss {x},{x}", "subsd {x},{x}", "mulps {x},{x}", "divpd {x},{x}", "sqrtss {x},{x}", "minps {x},{x}"),
    *("cmpsd {x},{x},1", "ucomiss {x},{x}", "comisd {x},{x}", "cvtsd2si {r64},{x}", "cvttps2dq {x},{x}"),
    *("cvtps2pd {x},{x}", "cvtsd2ss {x},{x}", "roundsd {x},{x},4", "haddps {x},{x}", "dpps {x},{x},255"),
    *("cvtps2pi {mm},{x}", "cvtsi2ss {x},{r64}"),
)
_XM, _UD = 19, 6
_FOUND_BEFORE = 7

ours = functools.cache(simd_ours)
runtime = functools.cache(load_runtime)


@functools.cache
def cpu() -> StencilCpu:
    built: Runtime = runtime()
    names = [*(f"helper_{n}" for n in REFERENCE), "helper_x86_sse_begin", "helper_x86_sse_end"]
    exports = set(built.exports)
    return StencilCpu({n: built.address(n) for n in names if n in exports})


def _expected(masked: Result, sticky: int, mxcsr: int) -> tuple[bool, int]:
    """(whether it traps, MXCSR after): SDM vol. 1, 11.5.2, 11.5.3. masked: the run that began without sticky flags."""
    raised = masked.state.mxcsr & 0x3F
    unmasked = ~mxcsr >> 7 & 0x3F
    if raised & unmasked & _FOUND_BEFORE:
        raised &= _FOUND_BEFORE
    return bool(raised & unmasked), mxcsr & ~0x3F | sticky | raised


@pytest.mark.parametrize("text", _ARITHMETIC)
@pytest.mark.parametrize("os_support", [True, False])
def test_unmasked_exceptions(text: str, os_support: bool, seed: int, states: int) -> None:
    rng = random.Random(f"{seed} {text} {os_support}")
    mode = MODE64 | Mode.FP_UNMASKED
    mine, runner = ours(), cpu()
    runner.mode = mode
    runner.cr4_clear = 0 if os_support else 1 << 10
    trapped = 0
    cases = cases_of(Template(text), rng, 4)
    patterns = [mine.decode(case.code, CODE, mode) for case in cases]
    stencils = StencilCompiler().compile([(text, optimize(block_of(p, Variant()))) for p in patterns])
    for case, pattern, stencil in zip(cases, patterns, stencils, strict=True):
        for _ in range(max(60, states)):
            before = random_state(rng)
            prepare("float", case, before, rng)
            sticky = before.mxcsr & 0x3F
            before.mxcsr &= ~0x3F
            plain = mine.decode(case.code, CODE, MODE64)
            masked = mine.step(plain, case.code, CODE, MODE64, before, Variant())
            before.mxcsr = before.mxcsr & ~0x1F80 | sticky | rng.getrandbits(6) << 7
            traps, mxcsr = _expected(masked, sticky, before.mxcsr)
            got = runner.step(stencil, pattern, case.code, CODE, before)
            want = Result(before.copy(), CODE, _XM if os_support else _UD) if traps else masked
            want.state.mxcsr = mxcsr
            trapped += traps
            wrong = differences(got, want, 0x8D5)
            assert not wrong, f"{case.text} seed {seed}: {wrong}"
    assert trapped


@pytest.mark.parametrize("text", CRYPTO)
def test_fallbacks(text: str, seed: int, states: int) -> None:
    """A host without the instructions calls the natives: the same results as the reference."""
    rng = random.Random(f"{seed} {text}")
    poor = Host(host().cpu, host().known, host().on - set(_FALLBACKS))
    case = cases_of(Template(text.replace("{xm128}", "{x}")), rng, 1)[0]
    mine = ours()
    pattern = mine.decode(case.code, CODE, MODE64)
    (stencil,) = StencilCompiler(target=poor).compile([(text, optimize(block_of(pattern, Variant())))])
    assert any(r.name == f"helper_x86_{case.text.split()[0]}" for r in stencil.relocs)
    runner = cpu()
    runner.mode = MODE64
    for _ in range(states):
        before = random_state(rng)
        prepare("crypto", case, before, rng)
        want = mine.step(pattern, case.code, CODE, MODE64, before, Variant())
        wrong = differences(runner.step(stencil, pattern, case.code, CODE, before), want, 0x8D5)
        assert not wrong, f"{case.text} seed {seed}: {wrong}"
