"""x87 instructions against the host CPU (state and memory bit for bit) and Unicorn (where it can be asked)."""

import random
from dataclasses import replace

import pytest

from fuzz.x86.cases import Template, aim, cases_of, expand
from fuzz.x86.harness import fuzz, ours
from fuzz.x86.oracles import unicorn_cpu
from fuzz.x86.ours import MODE32, MODE64, differences
from fuzz.x86.state import CODE, Result, random_state
from fuzz.x86.x87 import prepare, tame, templates
from tcg.exec.forms import Variant

_TEMPLATES = [pytest.param(t, id=t.text) for t in templates()]
_CONDITION = 0x4500  # C0, C2, C3
_COMPARED = 0x45  # CF, PF, ZF: FCOMI of QEMU 5 leaves the others


@pytest.mark.parametrize("template", _TEMPLATES)
def test_agrees_with_the_host(template: Template, seed: int, states: int) -> None:
    problems = fuzz(template, seed, states, prepare=prepare, fpu=True, stencil=False, unicorn=False)
    assert not problems, "\n".join(f"{p}\n    {p.before.fpu}" for p in problems[:3])


def _comparable(result: Result) -> Result:
    """Without exception flags and C1: QEMU 5 does not set them after arithmetic."""
    fpu = replace(result.state.fpu, status=result.state.fpu.status & _CONDITION)
    return replace(result, state=replace(result.state, fpu=fpu))


@pytest.mark.parametrize("template", _TEMPLATES)
def test_agrees_with_unicorn(template: Template, seed: int) -> None:
    if not template.unicorn:
        pytest.skip("Unicorn computes it differently")
    print(f"seed {seed}")
    for code64 in template.modes:
        unicorn_cpu(code64).reset()
    pc = CODE
    for one in expand(template):
        rng = random.Random(f"{seed} {one.text}")
        for case in cases_of(one, rng, 3):
            if not case.memory and case.code[-1] & 0xC7 == 0xC7:
                continue  # ST(7), the one empty register, which QEMU 5 does not look at
            pc += 32
            mode = MODE64 if case.code64 else MODE32
            pattern = ours().decode(case.code, pc, mode)
            for _ in range(4):
                before = random_state(rng, code64=case.code64)
                aim(case, before, rng)
                tame(case, before, rng)
                mine = _comparable(ours().step(pattern, case.code, pc, mode, before, Variant()))
                theirs = _comparable(unicorn_cpu(case.code64).step(case.code, pc, before))
                wrong = differences(mine, theirs, _COMPARED)
                assert not wrong, f"{case.text} ({case.code.hex()}): {wrong}\n{before.fpu}"


_NO_WAIT = frozenset(("fnstcw", "fnstsw", "fnclex", "fninit"))
_8087 = frozenset(("dbe0", "dbe1", "dbe4"))
_MF, _PF = 16, 14


@pytest.mark.parametrize("template", _TEMPLATES)
def test_pending_exception(template: Template, seed: int) -> None:
    """#MF before anything else, but in the instructions that do not wait."""
    print(f"seed {seed}")
    rng = random.Random(seed)
    one = expand(template)[0]
    case = cases_of(one, rng, 1)[0]
    before = random_state(rng)
    prepare(case, before, rng)  # the memory operand may be anywhere: #MF comes first
    before.fpu.control, before.fpu.status = 0x37B, 0x8084
    pattern = ours().decode(case.code, CODE, MODE64)
    if case.text.split()[0] in _NO_WAIT or case.code.hex() in _8087:
        aim(case, before, rng)
        assert ours().check_form(pattern, case.code, CODE, MODE64, before, rng).fault < 0
    else:
        result = ours().check_form(pattern, case.code, CODE, MODE64, before, rng)
        assert result.fault == _MF and result.state == before


@pytest.mark.parametrize("template", [t for t in _TEMPLATES if "{m" in t.values[0].text])
def test_memory_fault_leaves_the_state(template: Template, seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    for case in cases_of(expand(template)[0], rng, 4):
        if case.base < 0 or case.index >= 0 or not case.code64:
            continue
        before = random_state(rng)
        prepare(case, before, rng)
        before.regs[case.base] = 0x5000_0000
        pattern = ours().decode(case.code, CODE, MODE64)
        result = ours().check_form(pattern, case.code, CODE, MODE64, before, rng)
        stores = result.fault < 0 and before.fpu.control & 0x3F != 0x3F  # an unmasked exception: no access
        assert stores or (result.fault == _PF and result.state.fpu == before.fpu)


_STENCILS = (
    "fadd {m32}", "fld {m80}", "fstp {m80}", "fist {m16}", "fbstp {m80}", "fisttp {m64}", "fldcw {m16}", "fnstsw {m16}",
    "fnstsw ax", "fnclex", "emms", "wait", ".byte d9eb", ".byte d9fb", ".byte dec1", ".byte dbe9", ".byte dff2",
    ".byte dac1", ".byte dbd9", ".byte d9c9",
)  # fmt: skip


@pytest.mark.parametrize("text", _STENCILS)
def test_stencils_agree(text: str, seed: int) -> None:
    """Compiled code beside the interpreter: one of every way of emission."""
    problems = fuzz(Template(text), seed, 10, prepare=prepare, fpu=True, host=False, unicorn=False)
    assert not problems, "\n".join(f"{p}\n    {p.before.fpu}" for p in problems[:3])
