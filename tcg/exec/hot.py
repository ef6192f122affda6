"""Hot blocks: find them by sampling, have them compiled whole in a process of their own, put them in place.

A thread of the main process asks the vCPU for a sample every INTERVAL seconds (see tcg.runtime.hot). Of the blocks in
the last WINDOW samples the one seen most often, THRESHOLD times at least, goes to the worker process, which emits,
optimizes and compiles it (LLVM and the frontend would hold the GIL and llvmlite's lock here), and comes back as one
stencil. What an earlier run compiled is taken from the store (tcg.exec.hot_store) at the first sample instead. The
block's bytes are compared again before it is installed; a block that has been invalidated meanwhile is dropped.

A sample is taken at the head of the block after the one that was running when it was asked for: so a longer block that
is chained to the sampled one counts as seen too, or it would never be found.

Nothing here is needed for correctness: without a worker (`-accel tcg,hot-blocks=off`, or one that died) the blocks laid
from instruction stencils go on running.
"""

import contextlib
import ctypes
import pickle
import subprocess
import threading
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from tcg.exec.forms import Form, Stencil
from tcg.exec.hot_store import HotStore, Key
from tcg.exec.tables import TablesError
from tcg.exec.vcpu import VCpu
from tcg.runtime.layout import BLOCK, EXIT_SLOT, SAMPLE_RING
from tcg.runtime.struct import View

DELAY = 1.0  # seconds before the first sample: a kernel's timer calibrations see a thread that takes turns with theirs
INTERVAL = 0.001
THRESHOLD = 2
WINDOW = 256  # samples that count: later ones know better than the boot's
PENDING = 2  # jobs under way at once, one of them waiting, for the same reason
PREDECESSORS = 4  # exits chained to a sampled block that are looked at

Block = tuple[int, int, int, int]  # record, gpa, pc, mode


@dataclass(frozen=True, slots=True)
class Job:
    """One block to compile. code: its guest bytes; count: instructions; record: hva and generation of the old block."""

    record: int
    generation: int
    pc: int
    mode: int
    code: bytes
    count: int

    @property
    def key(self) -> Key:
        return self.pc, self.mode, self.count, self.code


@dataclass(frozen=True, slots=True)
class Answer:
    """The stencil of a job (None: not to be had), where its last instruction begins, and that one's form."""

    record: int
    stencil: Stencil | None
    last: int
    form: Form | None


def send(stream: IO[bytes], message: Any) -> None:
    data = pickle.dumps(message, protocol=5)
    stream.write(len(data).to_bytes(4, "little") + data)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """The next message; EOFError at the end. Only from our own child process: pickle is trusted."""
    head = stream.read(4)
    if len(head) < 4:
        raise EOFError
    return pickle.loads(stream.read(int.from_bytes(head, "little")))


def _candidate(record: int) -> Block | None:
    """A block record as sampled, if it can be replaced: valid, on one page, and not hot yet."""
    block = View(BLOCK, record)
    if not block.get("valid") or block.get("gpa2") != (1 << 64) - 1 or block.get("hot"):
        return None
    return record, block.get("gpa"), block.get("pc"), block.get("mode")


class HotBlocks:
    """The sampler thread of one vCPU and its worker process. command: starts the worker; store: earlier results."""

    def __init__(self, vcpu: VCpu, command: list[str], store: HotStore | None = None) -> None:
        self._vcpu = vcpu
        self._machine = vcpu.machine
        self._command = command
        self._worker: subprocess.Popen[bytes] | None = None
        self._store = store
        self._window: deque[Block] = deque(maxlen=WINDOW)
        self._asked: set[Key] = set()  # sent to the worker in this run
        self._jobs: dict[int, Job] = {}
        self._lock = threading.Lock()
        self._installing = threading.Lock()
        self._stop = threading.Event()
        self._read = 0
        self.compiled = 0
        self.installed = 0
        self._thread = threading.Thread(target=self._run, name="hot-blocks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop sampling and end the worker."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=1)
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()
        if self._store is not None:
            with self._lock:
                self._store.save()

    # --- sampling -----------------------------------------------------------------------------------------------------
    def _run(self) -> None:
        request = self._machine.runtime.function("hot_request", 1)
        env = self._vcpu.env.address
        if self._store is not None:
            self._store.load()
        if self._stop.wait(DELAY):
            return
        while not self._stop.wait(INTERVAL):
            request(env)
            self._collect()

    def _collect(self) -> None:
        cpu = self._vcpu.cpu
        count = cpu.get("sample_count")
        for n in range(max(self._read, count - SAMPLE_RING), count):
            self._sampled(cpu.get("samples", n & (SAMPLE_RING - 1)))
        if count != self._read:
            self._read = count
            self._choose()

    def _sampled(self, record: int) -> None:
        block = View(BLOCK, record)
        insns = block.get("insns")
        for seen in (record, *(p for p in self._predecessors(block) if View(BLOCK, p).get("insns") > insns)):
            key = _candidate(seen)
            if key is not None:
                self._window.append(key)
                if self._store is not None:
                    self._from_store(key)

    def _predecessors(self, block: View) -> Iterator[int]:
        """Blocks with an exit chained to this one. Another thread may be changing the list: no pointer is trusted."""
        machine = self._machine.view
        slot = block.get("incoming")
        for _ in range(PREDECESSORS):
            if not machine.get("block_start") <= slot < machine.get("block_top"):
                return
            view = View(EXIT_SLOT, slot)
            found = view.get("block")
            if not machine.get("block_start") <= found < machine.get("block_top"):
                return
            yield found
            slot = view.get("next")

    def _from_store(self, block: Block) -> None:
        """Install at once what an earlier run has compiled."""
        assert self._store is not None
        job = self._job(block)
        if job is not None:
            with self._lock:
                result = self._store.find(job.key)
            if result is not None:
                self._install(job, *result)

    def _choose(self) -> None:
        """Send the block seen most often to the worker, if that has room."""
        for block, count in Counter(self._window).most_common():
            if count < THRESHOLD:
                return
            with self._lock:
                if len(self._jobs) >= PENDING:
                    return
                busy = block[0] in self._jobs
            if busy or _candidate(block[0]) != block:
                continue
            job = self._job(block)
            if job is not None and job.key not in self._asked:
                self._asked.add(job.key)
                self._submit(job)

    def _job(self, block: Block) -> Job | None:
        record, gpa, pc, mode = block
        hva = self._machine.runtime.call("ram_hva", self._vcpu.env.address, gpa)
        if hva in (-1, 0):
            return None
        view = View(BLOCK, record)
        code = ctypes.string_at(hva, view.get("size"))
        return Job(record, self._machine.view.get("generation"), pc, mode, code, view.get("insns"))

    # --- the worker ---------------------------------------------------------------------------------------------------
    def _submit(self, job: Job) -> None:
        if self._worker is None:
            if self._stop.is_set():
                return
            try:
                self._worker = subprocess.Popen(
                    self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                )
            except OSError:
                self._stop.set()
                return
            threading.Thread(target=self._answers, args=(self._worker,), name="hot-answers", daemon=True).start()
        assert self._worker.stdin is not None
        with self._lock:
            self._jobs[job.record] = job
        try:
            send(self._worker.stdin, job)
        except OSError:
            self._stop.set()

    def _answers(self, worker: "subprocess.Popen[bytes]") -> None:
        assert worker.stdout is not None
        with contextlib.suppress(EOFError, OSError, pickle.UnpicklingError):
            while True:
                answer: Answer = receive(worker.stdout)
                with self._lock:
                    job = self._jobs.pop(answer.record)
                self.compiled += 1
                if answer.stencil is not None and answer.form is not None:
                    result = (answer.stencil, answer.last, answer.form)
                    if self._store is not None:
                        with self._lock:
                            self._store.add(job.key, result)
                    self._install(job, *result)

    def _install(self, job: Job, stencil: Stencil, last: int, form: Form) -> None:
        with self._installing:
            self._install_locked(job, stencil, last, form)

    def _install_locked(self, job: Job, stencil: Stencil, last: int, form: Form) -> None:
        tables, runtime = self._machine.tables, self._machine.runtime
        block = View(BLOCK, job.record)
        hva = runtime.call("ram_hva", self._vcpu.env.address, block.get("gpa"))
        pattern = tables.pattern_offset(job.mode, job.code[last:])
        form_offset = tables.form_offset(form)
        if pattern < 0 or form_offset < 0 or hva in (-1, 0) or ctypes.string_at(hva, len(job.code)) != job.code:
            return
        try:
            index = tables.set_scratch(stencil)
        except TablesError:
            return
        self.installed += runtime.call(
            "hot_install", self._vcpu.env.address, job.record, job.generation, index, last, hva + last,
            pattern, form_offset,
        )  # fmt: skip
