"""MMX and SSE instructions: our IR in every variant against the host CPU (flags in MXCSR included) and Unicorn."""

import functools
import random
import struct

import pytest

from frontends.x86.helpers.simd import SIMD_HELPERS
from frontends.x86.helpers.simd_reference import REFERENCE
from fuzz.x86.cases import Template, cases_of, expand
from fuzz.x86.harness import Problem, fuzz
from fuzz.x86.oracles import host_cpu
from fuzz.x86.ours import MODE64, Ours
from fuzz.x86.simd import APPROXIMATE, address, prepare, simd_ours, templates
from fuzz.x86.state import CODE, random_state
from tcg.exec.forms import Variant

_TEMPLATES = [pytest.param(t, c, id=f"{c}: {t.text}") for c, t in templates()]
_GP = 13

ours = functools.cache(simd_ours)


def _known(problem: Problem) -> bool:
    """What Unicorn (QEMU 5) gets wrong: it does not check alignment; PHADD and PHSUB of one register with itself."""
    case = problem.case
    if problem.judge != "unicorn":
        return False
    if case.memory and problem.what[0].startswith(f"fault: {_GP:#x}"):
        return case.base < 0 or address(case, problem.before) % 16 != 0
    name, _, operands = case.text.partition(" ")
    registers = operands.split(",")
    return name.startswith(("phadd", "phsub")) and registers[0] == registers[1]


@pytest.mark.parametrize(("template", "chapter"), _TEMPLATES)
def test_agrees(template: Template, chapter: str, seed: int, states: int) -> None:
    problems = fuzz(
        template, seed, states,
        prepare=lambda case, state, rng: prepare(chapter, case, state, rng), fpu=True, stencil=False,
        ours_=ours(),
    )  # fmt: skip
    problems = [p for p in problems if not _known(p)]
    assert not problems, "\n".join(str(p) for p in problems[:3])


def _value(bits: int) -> float:
    value: float = struct.unpack("<f", struct.pack("<I", bits))[0]
    return value


@pytest.mark.parametrize("text", APPROXIMATE)
def test_approximations(text: str, seed: int, states: int) -> None:
    """Special results alike, the others within the manual's bound (relative error 1.5 * 2^-12) of one another."""
    cpu = host_cpu()
    if cpu is None:
        pytest.skip("needs an x86-64 host")
    rng = random.Random(f"{seed} {text}")
    mine: Ours = ours()
    case = cases_of(expand(Template(text))[0], rng, 1)[0]
    for _ in range(states):
        before = random_state(rng)
        prepare("float", case, before, rng)
        pattern = mine.decode(case.code, CODE, MODE64)
        got = mine.step(pattern, case.code, CODE, MODE64, before, Variant()).state
        want = cpu.step(case.code, CODE, before).state
        assert got.mxcsr == want.mxcsr == before.mxcsr
        for one, other in zip(got.xmm, want.xmm, strict=True):
            for lane in range(0, 128, 32):
                a, b = one >> lane & 0xFFFFFFFF, other >> lane & 0xFFFFFFFF
                if a != b:
                    assert abs(_value(a) - _value(b)) <= 3 * 2**-12 * abs(_value(b)), f"{case.text}: {a:#x} {b:#x}"


def test_reference_covers_every_declaration() -> None:
    assert set(SIMD_HELPERS) == set(REFERENCE)
