"""Every case of tests/ir/*.ir: the optimizer gives the golden text, and the interpreter sees no difference."""

import random
from pathlib import Path

import pytest
from ir.golden import GoldenCase, GoldenFile, read, write
from irgen import ENV_SIZE, HELPERS, HOLES, MEMORY_BASE, MEMORY_SIZE

from tcg.ir.block import Block
from tcg.ir.interp import FlatMemory, run
from tcg.ir.text import parse, show
from tcg.ir.verify import verify
from tcg.opt.pipeline import optimize

FILES = sorted(Path(__file__).parent.glob("*.ir"))
CASES = [(path, i, case.title) for path in FILES for i, case in enumerate(read(path).cases)]


@pytest.fixture(scope="module", autouse=True)
def rewritten(request: pytest.FixtureRequest) -> None:
    """With --bless, write what the optimizer gives before the cases are looked at."""
    if request.config.getoption("--bless"):
        for path in FILES:
            file = read(path)
            cases = (GoldenCase(c.title, c.before, show(optimize(parse(c.before)))) for c in file.cases)
            write(path, GoldenFile(file.head, tuple(cases)))


@pytest.mark.parametrize(("path", "index", "title"), CASES, ids=[f"{p.stem}: {title}" for p, _, title in CASES])
def test_golden(path: Path, index: int, title: str) -> None:
    case = read(path).cases[index]
    before = parse(case.before)
    verify(before)
    after = optimize(before)
    verify(after)
    assert show(after).strip() == case.after
    for seed in range(4):
        assert _execute(before, seed) == _execute(after, seed)


def _execute(block: Block, seed: int) -> tuple[object, bytes, bytes]:
    rng = random.Random(seed)
    env = bytearray(rng.randbytes(ENV_SIZE))
    memory = FlatMemory(bytearray(rng.randbytes(MEMORY_SIZE)), MEMORY_BASE)
    return run(block, env, memory, HELPERS, HOLES), bytes(env), bytes(memory.data)


def test_there_are_cases() -> None:
    assert len(CASES) >= 20
