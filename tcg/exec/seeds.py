"""Seeds: the stencils that a first boot will ask for, compiled in bulk beside the starting guest.

A seed list is a text file, a line a form, in the order in which a boot came to need them:

    MODE CODE VARIANTS NAME      81 4889c0 5l,0d mov.64 gpr64, gpr64

the vCPU mode and one encoding of the form (hex), the variants wanted (status_in, then l or d: flags live or dead), and
the form's name, whose mnemonic shares the work out. It holds no host code, and nothing of it is believed: a line that
does not decode to a form is skipped, one that nobody needs costs a compilation.

Worker processes (LLVM holds a lock, so threads would not do) read the list, decode, translate and compile; they send
first what they are going to make, then the stencils batch by batch. `Seeds` is the parent's end, used under tb_lock:

    take(wanted)     put finished stencils into the tables; wait while a worker is about to make a wanted one
    close()          take what is there, end the workers

A worker that dies costs the stencils it still owed: the translator compiles them when they are asked for.
"""

import contextlib
import os
import pickle
import selectors
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any, Protocol

from tcg.exec.forms import Form, Stencil, Variant

BATCH = 48  # stencils a message; the first ones are smaller, since the guest waits for them
SOON = 2 * BATCH  # what a worker makes next is worth waiting for; what comes later is compiled here too
Announced = list[tuple[Form, list[Variant]]]  # a worker's first message
Made = list[tuple[Form, list[tuple[Variant, Stencil]]]]  # the others


@dataclass(frozen=True, slots=True)
class Seed:
    mode: int
    code: bytes
    variants: tuple[Variant, ...]
    name: str

    def __str__(self) -> str:
        variants = ",".join(f"{v.status_in}{'l' if v.status_live else 'd'}" for v in self.variants)
        return f"{self.mode:x} {self.code.hex()} {variants} {self.name}"


def parse(text: str) -> list[Seed]:
    """The seeds of a list; lines that are no seed (comments among them) are left out."""
    seeds = []
    for line in text.splitlines():
        words = line.split(" ", 3)
        with contextlib.suppress(ValueError):
            mode, code, variants, name = words
            made = tuple(Variant(v[-1:] == "l", int(v[:-1])) for v in variants.split(","))
            seeds.append(Seed(int(mode, 16), bytes.fromhex(code), made, name))
    return seeds


def shares(seeds: Iterable[Seed], count: int) -> list[list[Seed]]:
    """The list split for `count` workers: in order, of even size, a mnemonic whole (its forms often compile alike)."""
    seeds = list(seeds)
    weights: Counter[str] = Counter()
    for seed in seeds:
        weights[seed.name.split(".")[0]] += len(seed.variants)
    owner: dict[str, int] = {}
    loads = [0] * count
    for name, weight in weights.items():
        owner[name] = loads.index(min(loads))
        loads[owner[name]] += weight
    split: list[list[Seed]] = [[] for _ in range(count)]
    for seed in seeds:
        split[owner[seed.name.split(".")[0]]].append(seed)
    return split


class SeedSource(Protocol):
    """What `collect` needs of tcg.exec.tables."""

    def encodings(self) -> Iterator[tuple[int, bytes, int]]: ...
    def form(self, form_id: int) -> Form: ...
    def stencil_variants(self, form_id: int) -> list[tuple[int, Variant]]: ...


def collect(tables: SeedSource) -> list[Seed]:
    """The seed list that would make these tables' stencils again."""
    shortest: dict[int, tuple[int, bytes]] = {}
    for mode, code, form_id in tables.encodings():
        known = shortest.get(form_id)
        if known is None or (len(code), code) < (len(known[1]), known[1]):
            shortest[form_id] = mode, code
    found = []
    for form_id, (mode, code) in shortest.items():
        stencils = tables.stencil_variants(form_id)
        if stencils:
            seed = Seed(mode, code, tuple(v for _, v in stencils), tables.form(form_id).name)
            found.append((stencils[0][0], seed))
    return [seed for _, seed in sorted(found, key=lambda item: item[0])]


class StencilTables(Protocol):
    """What `Seeds` needs of tcg.exec.tables."""

    def add_form(self, form: Form) -> int: ...
    def has_stencil(self, form_id: int, variant: Variant) -> bool: ...
    def set_stencil(self, form_id: int, variant: Variant, stencil: Stencil) -> None: ...


class Seeds:
    """The parent's end. commands: one a worker, whose standard output is read. `added`: stencils taken so far."""

    def __init__(self, tables: StencilTables, commands: Sequence[Sequence[str]]) -> None:
        self._tables = tables
        self._workers: list[subprocess.Popen[bytes]] = []
        # By a worker's file number (absent: not yet announced), in the order in which it works.
        self._owed: dict[int, dict[tuple[int, Variant], None]] = {}
        self._selector = selectors.DefaultSelector()
        self.added = 0
        for command in commands:
            with contextlib.suppress(OSError):
                worker = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                )
                assert worker.stdout is not None
                _enlarge(worker.stdout)
                self._workers.append(worker)
                self._selector.register(worker.stdout, selectors.EVENT_READ, bytearray())

    def take(self, wanted: Sequence[tuple[int, Variant]]) -> list[tuple[int, Variant]]:
        """Those of `wanted` (form id, variant) that no worker has made or is about to make."""
        self._read(0)
        missing = self._missing(wanted)
        while any(self._coming(pair) for pair in missing):
            self._read(None)
            missing = self._missing(missing)
        return missing

    def _missing(self, wanted: Sequence[tuple[int, Variant]]) -> list[tuple[int, Variant]]:
        return [(form_id, variant) for form_id, variant in wanted if not self._tables.has_stencil(form_id, variant)]

    def _coming(self, pair: tuple[int, Variant]) -> bool:
        """Whether a worker makes it soon, or has not said yet what it is going to make."""
        return any(
            number not in self._owed or pair in islice(self._owed[number], SOON)
            for number in tuple(self._selector.get_map() or ())
        )

    def _read(self, timeout: float | None) -> None:
        """Take the messages that are there; timeout None: wait for one."""
        while self._selector.get_map():
            ready = self._selector.select(timeout)
            if not ready:
                return
            for key, _ in ready:
                received: bytearray = key.data
                try:
                    chunk = os.read(key.fd, 1 << 20)
                    received += chunk
                    for message in _messages(received):
                        self._message(key.fd, message)
                except (OSError, pickle.UnpicklingError):
                    chunk = b""
                if not chunk:
                    self._selector.unregister(key.fileobj)
            timeout = 0

    def _message(self, number: int, message: Any) -> None:
        if number not in self._owed:
            announced: Announced = message
            self._owed[number] = {(self._tables.add_form(form), v): None for form, vs in announced for v in vs}
            return
        made: Made = message
        for form, stencils in made:
            form_id = self._tables.add_form(form)
            for variant, stencil in stencils:
                self._owed[number].pop((form_id, variant), None)
                if not self._tables.has_stencil(form_id, variant):
                    self._tables.set_stencil(form_id, variant, stencil)
                    self.added += 1

    def close(self) -> None:
        self._read(0)
        for worker in self._workers:
            worker.kill()
            worker.wait()
            assert worker.stdout is not None
            worker.stdout.close()
        self._selector.close()
        self._workers = []


def _messages(received: bytearray) -> Iterator[Any]:
    """The whole messages (tcg.exec.hot.send) at the front of what was received; they are taken off."""
    while len(received) >= 4 and len(received) >= (end := 4 + int.from_bytes(received[:4], "little")):
        message = pickle.loads(memoryview(received)[4:end].tobytes())
        del received[:end]
        yield message


def _enlarge(pipe: IO[bytes]) -> None:
    """Let a worker run ahead of the guest: a pipe that holds all that it makes."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1 << 20)


def worker_count() -> int:
    return min(2, len(os.sched_getaffinity(0)))
