"""QHT: against a dict, and lock-free look-ups beside a writer that grows the table and takes blocks away."""

import ctypes
import random
import threading
from collections.abc import Iterator

import pytest

from tcg.runtime.layout import BLOCK, MACHINE
from tcg.runtime.object import Runtime, runtime_from
from tcg.runtime.registry import Recipe
from tcg.runtime.struct import View

SEED = 7
ROOTS = ("qht_init", "qht_free", "qht_clear", "qht_find", "qht_add", "qht_remove")


@pytest.fixture(scope="module")
def qht() -> Runtime:
    return runtime_from(Recipe(), ROOTS, modules=("tcg.runtime.qht",))


class Table:
    """A QHT over `count` block records with random keys, some of them alike in all but one part."""

    def __init__(self, qht: Runtime, count: int, rng: random.Random) -> None:
        self.qht = qht
        self.machine = (ctypes.c_char * MACHINE.size)()
        self.at = ctypes.addressof(self.machine)
        self._raw = (ctypes.c_char * (count * BLOCK.size + 16))()
        base = (ctypes.addressof(self._raw) + 15) & -16
        self.blocks = [base + n * BLOCK.size for n in range(count)]
        keys: dict[tuple[int, int, int], None] = {}
        while len(keys) < count:
            gpa = rng.randrange(1 << 20) << rng.randrange(4)
            keys[(gpa, gpa & 0xFFF | rng.randrange(8) << 12, rng.randrange(4))] = None
        self.keys = list(keys)
        for block, (gpa, pc, mode) in zip(self.blocks, self.keys, strict=True):
            view = View(BLOCK, block)
            view.set("gpa", gpa)
            view.set("pc", pc)
            view.set("mode", mode)
        qht.call("qht_init", self.at)

    def find(self, n: int) -> int:
        return self.qht.call("qht_find", self.at, *self.keys[n])


@pytest.fixture
def table(qht: Runtime) -> Iterator[Table]:
    made = Table(qht, 60_000, random.Random(SEED))
    yield made
    qht.call("qht_free", made.at)


def test_like_a_dict(qht: Runtime, table: Table) -> None:
    rng = random.Random(SEED)
    there: set[int] = set()
    for n in range(60_000):  # past the first growth
        qht.call("qht_add", table.at, table.blocks[n])
        there.add(n)
        if n % 3 == 0:
            gone = rng.randrange(n + 1)
            assert qht.call("qht_remove", table.at, table.blocks[gone]) == int(gone in there), f"seed {SEED}"
            there.discard(gone)
    for n in range(60_000):
        assert table.find(n) == (table.blocks[n] if n in there else 0), f"{n}, seed {SEED}"
    assert View(MACHINE, table.at).get("qht_count") == len(there)
    qht.call("qht_clear", table.at)
    assert not any(table.find(n) for n in range(0, 60_000, 7))


def test_readers_beside_a_writer(qht: Runtime, table: Table) -> None:
    """Blocks that stay are always found while others come and go and the table grows; what is found is right."""
    stable, count = 5_000, len(table.blocks)
    for n in range(stable):
        qht.call("qht_add", table.at, table.blocks[n])
    stop = threading.Event()
    wrong: list[str] = []
    looked = [0, 0]

    def read(which: int) -> None:
        rng = random.Random(SEED + which)
        while not stop.is_set():
            n = rng.randrange(count)
            found = table.find(n)
            looked[which] += 1
            if found != table.blocks[n] and (found != 0 or n < stable):
                wrong.append(f"reader {which}: block {n} gave {found:#x}")
                return

    readers = [threading.Thread(target=read, args=(n,)) for n in range(2)]
    for thread in readers:
        thread.start()
    for n in range(stable, count):
        qht.call("qht_add", table.at, table.blocks[n])
        if n % 2:
            qht.call("qht_remove", table.at, table.blocks[n - 1])
    stop.set()
    for thread in readers:
        thread.join()
    assert not wrong, f"{wrong}, seed {SEED}"
    assert min(looked) > 100
