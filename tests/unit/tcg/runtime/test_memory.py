"""Every primitive: its LLVM text and its Python body are the same function."""

import ctypes
import random

import native_samples
import pytest

from tcg.runtime.object import Runtime, runtime_from
from tcg.runtime.registry import Recipe

SEED = 20261120
EDGES = (0, 1, -1, 2, 63, 64, 127, 128, 255, 256, 32767, 65535, 1 << 31, (1 << 31) - 1, -(1 << 31), (1 << 32) - 1)
EDGES += (1 << 32, (1 << 63) - 1, -(1 << 63), 0x123456789ABCDEF)


@pytest.fixture(scope="module")
def compiled() -> Runtime:
    recipe = Recipe((native_samples.__name__,))
    return runtime_from(recipe, ("sample_unary", "sample_binary", "sample_memory"), modules=())


def values(rng: random.Random) -> list[int]:
    return [*EDGES, *(rng.getrandbits(64) - (1 << 63) >> rng.randrange(64) for _ in range(40))]


@pytest.mark.parametrize("which", range(12))
def test_unary(compiled: Runtime, which: int) -> None:
    for a in values(random.Random(SEED)):
        assert compiled.call("sample_unary", which, a) == native_samples.sample_unary(which, a), f"{a:#x}, seed {SEED}"


@pytest.mark.parametrize("which", range(10))
def test_binary(compiled: Runtime, which: int) -> None:
    rng = random.Random(SEED)
    for a in values(rng):
        for b in values(rng):
            want = native_samples.sample_binary(which, a, b)
            assert compiled.call("sample_binary", which, a, b) == want, f"{a:#x}, {b:#x}, seed {SEED}"


@pytest.mark.parametrize("which", range(12))
def test_memory(compiled: Runtime, which: int) -> None:
    rng = random.Random(SEED)
    raw = (ctypes.c_char * 128)()
    at = (ctypes.addressof(raw) + 15) & -16
    for n in range(200):
        start = rng.randbytes(64)
        if n & 1:
            start = start[:16] * 2 + start[32:]  # a compare-exchange that succeeds
        a, b = (rng.getrandbits(64) - (1 << 63) for _ in range(2))
        seen = []
        for call in (compiled.function("sample_memory", 4), native_samples.sample_memory):
            ctypes.memmove(at, start, 64)
            seen.append((call(which, at, a, b), ctypes.string_at(at, 64)))
        assert seen[0] == seen[1], f"round {n}, seed {SEED}"
