"""The long differential run: every form over many random states, results as they come.

    python -m fuzz.x86.campaign --states 1000 --seed 1 [--chapters arith,x87] [--seconds 600] --out build/fuzz

A form here is an instruction with its kinds of operands (register or memory, sizes) in one code size; its states are
spread over `--encodings` random encodings (registers, addressing shapes, immediates). All states: our stencils, flags
live and dead, against the host CPU, or Unicorn where the host cannot be asked. A sample of them: the IR interpreter in
every variant, and Unicorn. Lines of JSON in OUT/results.jsonl, one a form; forms found there are not run again.
"""

import argparse
import collections
import dataclasses
import json
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[3]))

from fuzz.x86 import batch as batches
from fuzz.x86 import integer, simd, test_integer, test_simd, x87
from fuzz.x86.cases import Case, Template, aim, cases_of, expand
from fuzz.x86.harness import Judge, Judges, Prepare, Problem, _fresh_pc, ours, run_case
from fuzz.x86.oracles import unicorn_cpu
from fuzz.x86.ours import MODE32, MODE64, Ours, differences
from fuzz.x86.state import CODE, DATA_SIZE, Result, State
from tcg.exec.forms import Variant

_STATUS = 0x8D5
_BEYOND = 0x0180_0000  # from the data region to where nothing is mapped: a page fault


@dataclasses.dataclass(frozen=True, slots=True)
class Chapter:
    """What tests of the chapter say about preparation, judges and undefined results."""

    name: str
    templates: list[Template]
    prepare: Prepare
    ours: Callable[[], Ours] = ours
    fpu: bool = False
    unicorn: bool = True
    undefined: Judge | None = None
    unicorn_wrong: Callable[[Case], bool] | None = None
    known: Callable[[Problem], bool] | None = None
    branches: bool = False


def _not_canonical(problem: Problem) -> bool:
    """CPUs check the target of JMP, CALL and RET before they leave; we, as QEMU, when the target is fetched."""
    texts = problem.what
    if problem.judge != "host" or texts[0] != "fault: -0x1 != 0xd":
        return False
    target = next(int(t.split()[1], 16) for t in texts if t.startswith("pc: "))
    return problem.case.text.startswith(("jmp", "call", "ret")) and target >> 47 not in (0, (1 << 17) - 1)


def _wide_accumulator(problem: Problem) -> bool:
    """CMPXCHG r32, r32 of equals: Unicorn clears the upper half of RAX (the host judges the memory form)."""
    return (
        problem.judge == "unicorn"
        and problem.case.text.startswith("cmpxchg ")
        and (len(problem.what) == 1 and problem.what[0].startswith("r0: ") and problem.case.text.count("[") == 0)
    )


def _simd_known(problem: Problem) -> bool:
    """Beside Unicorn's: AMD hosts do not ask SHA's memory operand to be aligned (the SDM's type 4 does)."""
    unaligned = problem.judge == "host" and problem.what[0] == "fault: 0xd != -0x1"
    return (unaligned and problem.case.text.startswith("sha")) or test_simd._known(problem)


def _store_order(problem: Problem) -> bool:
    """An unmasked exception of an x87 store to an unmapped page: which is first is the implementation's to say."""
    stores = problem.case.text.startswith(("fst", "fist", "fbstp"))
    return problem.judge == "host" and problem.what[0] == "fault: -0x1 != 0xe" and stores


_KNOWN = {"control": _not_canonical, "move": _wide_accumulator}


def chapters() -> dict[str, Chapter]:
    found = []
    for name, templates in integer.CHAPTERS.items():
        found.append(Chapter(
            name, templates, lambda c, s, r, name=name: test_integer._prepare(name, c, s, r),
            undefined=test_integer._undefined, unicorn_wrong=test_integer._unicorn_wrong, branches=name == "control",
            known=_KNOWN.get(name),
        ))  # fmt: skip
    for name in simd.CHAPTERS:
        found.append(Chapter(
            f"simd-{name}", [t for _, t in simd.templates(name)],
            lambda c, s, r, name=name: simd.prepare(name, c, s, r), ours=test_simd.ours, fpu=True,
            known=_simd_known,
        ))  # fmt: skip
    found.append(Chapter("x87", x87.templates(), x87.prepare, fpu=True, unicorn=False, known=_store_order))
    return {c.name: c for c in found}


@dataclasses.dataclass(slots=True)
class Count:
    """What became of a form."""

    chapter: str
    form: str
    bits: int
    states: int = 0
    host: int = 0
    unicorn: int = 0
    interpreter: int = 0
    faults: int = 0
    known: int = 0
    mismatches: int = 0
    seconds: float = 0.0
    problems: list[str] = dataclasses.field(default_factory=list)


class Form:
    """One form's run."""

    def __init__(self, chapter: Chapter, template: Template, code64: bool, seed: int) -> None:
        self.chapter, self.template, self.code64, self.seed = chapter, template, code64, seed
        self.rng = random.Random(f"{seed} {template.text} {code64}")
        self.count = Count(chapter.name, template.text, 64 if code64 else 32)
        self.mode = MODE64 if code64 else MODE32

    def run(self, states: int, encodings: int, sample: int) -> Count:
        began = time.process_time()
        one = dataclasses.replace(self.template, modes=(self.code64,))
        unique = {case.code: case for case in cases_of(one, self.rng, encodings)}
        cases = list(unique.values())
        mine = self.chapter.ours()
        batches.batch_stencils().compile_all([mine.decode(case.code, CODE, self.mode) for case in cases])
        each, sampled = -(-states // len(cases)), -(-sample // len(cases))
        for case in cases:
            pc = _fresh_pc(self.code64)  # just before it is used: Unicorn begins anew when they wrap around
            pattern = mine.decode(case.code, pc, self.mode)
            ran, wrong = batches.run_stencils(case, pattern, pc, self._states(case, each))
            self.count.states += each
            self.count.faults += int((ran.faults >= 0).sum())
            for i, what in wrong:
                self._problem(Problem(case, self.seed, "stencil", [what], ran.states[i]))
            if self._host(case):
                self._against_host(ran)
            elif self._unicorn(case):
                for i in range(each):
                    self._against_unicorn(ran, i)
            self._sample(ran, min(sampled, each))
        self.count.seconds = round(time.process_time() - began, 3)
        return self.count

    def _states(self, case: Case, number: int) -> list[State]:
        memory = self.rng.randbytes(DATA_SIZE)
        vectors = [self.rng.getrandbits(128) for _ in range(64)]
        made = []
        for _ in range(number):
            state = batches.quick_state(self.rng, case.code64, memory, vectors)
            aim(case, state, self.rng)
            if case.base >= 0 and case.base != case.index and self.rng.randrange(16) == 0:
                state.regs[case.base] = state.regs[case.base] + _BEYOND & ((1 << (64 if self.code64 else 32)) - 1)
            self.chapter.prepare(case, state, self.rng)
            made.append(state)
        return made

    def _host(self, case: Case) -> bool:
        """The native host can be asked about branches and segment bases of 64-bit code too."""
        segment = case.code64 and ("fs:" in case.text or case.code[0] in (0x64, 0x65))
        return self.template.host or self.chapter.branches or segment

    def _unicorn(self, case: Case) -> bool:
        wrong = self.chapter.unicorn_wrong
        return self.chapter.unicorn and self.template.unicorn and not (wrong is not None and wrong(case))

    def _problem(self, problem: Problem) -> None:
        if self.chapter.known is not None and self.chapter.known(problem):
            self.count.known += 1
            return
        self.count.mismatches += 1
        if len(self.count.problems) < 3:
            self.count.problems.append(str(problem))

    def _judge(self, ran: batches.Batch, i: int, name: str, expected: Result) -> None:
        case, before, result = ran.case, ran.states[i], ran.result(i)
        mask = _STATUS & ~case.undefined
        if self.chapter.undefined is not None:
            more = self.chapter.undefined(case, before, result, expected)
            if more < 0:
                return
            mask &= ~more
        both_fault = result.fault >= 0 and expected.fault >= 0
        wrong = [] if both_fault else differences(result, expected, mask, fpu=self.chapter.fpu)
        if result.fault != expected.fault:
            wrong.insert(0, f"fault: {result.fault:#x} != {expected.fault:#x}")
        if wrong:
            self._problem(Problem(case, self.seed, name, wrong, before))

    def _against_host(self, ran: batches.Batch) -> None:
        rows = batches.run_host(ran, branches=self.chapter.branches)
        self.count.host += len(ran.states)
        for i in batches.suspects(ran, rows, _STATUS & ~ran.case.undefined, fpu=self.chapter.fpu):
            self._judge(ran, i, "host", batches.host_result(ran, rows, i))

    def _against_unicorn(self, ran: batches.Batch, i: int) -> None:
        self.count.unicorn += 1
        self._judge(ran, i, "unicorn", unicorn_cpu(ran.case.code64).step(ran.case.code, ran.pc, ran.states[i]))

    def _sample(self, ran: batches.Batch, rows: int) -> None:
        mine, case = self.chapter.ours(), ran.case
        ask = self._host(case) and self._unicorn(case)
        judges = Judges(ask, False, False, self.chapter.fpu, self.chapter.undefined, 0)
        for i in range(rows):
            before = ran.states[i]
            self.count.interpreter += 1
            self.count.unicorn += ask
            for problem in run_case(case, before, ran.pc, self.seed, self.rng, judges, mine):
                self._problem(problem)
            expected = mine.step(ran.pattern, case.code, ran.pc, self.mode, before, Variant())
            wrong = differences(ran.result(i), expected, _STATUS, fpu=self.chapter.fpu)
            if wrong:
                self._problem(Problem(case, self.seed, "interpreter", wrong, before))


def forms(chosen: list[Chapter], seed: int) -> Iterator[Form]:
    for chapter in chosen:
        for template in chapter.templates:
            for one in expand(template):
                for code64 in one.modes:
                    yield Form(chapter, one, code64, seed)


def _read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _key(count: dict[str, object]) -> tuple[object, ...]:
    return count["chapter"], count["form"], count["bits"]


def summary(counts: list[dict[str, object]]) -> str:
    names = ("forms", "states", "host", "unicorn", "interpreter", "faults", "known", "mismatches", "errors")
    totals: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    last = {_key(count): count for count in counts}
    for count in last.values():
        for total in (totals[str(count["chapter"])], totals["all"]):
            total["forms"] += 1
            total["errors"] += "error" in count
            for name in names[1:-1]:
                total[name] += int(str(count.get(name, 0)))
    rows = [f"{'chapter':14}" + "".join(f"{n:>13}" for n in names)]
    totals["all"] = totals.pop("all", collections.Counter())
    rows += [f"{c:14}" + "".join(f"{t[n]:13}" for n in names) for c, t in totals.items()]
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--states", type=int, default=1000)
    parser.add_argument("--encodings", type=int, default=20)
    parser.add_argument("--sample", type=int, default=25, help="states that the interpreter and Unicorn see too")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1e9, help="end after this time")
    parser.add_argument("--chapters", default="", help="names with commas; default: all")
    parser.add_argument("--only", default="", help="forms that begin so")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"))
    options = parser.parse_args()
    known = chapters()
    chosen = [known[name] for name in (options.chapters.split(",") if options.chapters else known)]
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"results-{options.seed}.jsonl"
    path.touch()
    print(f"seed {options.seed}, {options.states} states a form", flush=True)
    until = time.monotonic() + options.seconds
    bad = 0
    done: set[tuple[object, ...]] = set()
    with path.open("a") as out, path.open() as others:  # several runs may share the work
        for form in forms(chosen, options.seed):
            count = form.count
            done.update(_key(json.loads(line)) for line in others)
            if not count.form.startswith(options.only) or _key(dataclasses.asdict(count)) in done:
                continue
            if time.monotonic() > until:
                print("out of time")
                break
            try:
                found = dataclasses.asdict(form.run(options.states, options.encodings, options.sample))
            except Exception:
                found = dataclasses.asdict(count) | {"error": traceback.format_exc()}
                print(f"{count.form}: {found['error']}", flush=True)
            for text in found["problems"]:
                print(text, flush=True)
            bad += bool(found["problems"]) or "error" in found
            out.write(json.dumps(found) + "\n")
            out.flush()
    print(summary(_read(path)))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
