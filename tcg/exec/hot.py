"""Hot blocks: find them by sampling, have them compiled whole in a process of their own, put them in place.

A thread of the main process asks the vCPU for a sample every INTERVAL seconds (see tcg.runtime.hot); a block seen
THRESHOLD times goes to the worker process, which emits, optimizes and compiles it (LLVM and the frontend would hold the
GIL and llvmlite's lock here), and comes back as one stencil. The block's bytes are compared again before it is
installed; a block that has been invalidated meanwhile is dropped.

Nothing here is needed for correctness: without a worker (`-accel tcg,hot-blocks=off`, or one that died) the blocks laid
from instruction stencils go on running.
"""

import contextlib
import ctypes
import pickle
import subprocess
import threading
from collections import Counter
from dataclasses import dataclass
from typing import IO, Any

from tcg.exec.forms import Form, Stencil
from tcg.exec.tables import TablesError
from tcg.exec.vcpu import VCpu
from tcg.runtime.layout import BLOCK, SAMPLE_RING
from tcg.runtime.struct import View

INTERVAL = 0.001
THRESHOLD = 2
PENDING = 4  # jobs under way at once: later samples know better


@dataclass(frozen=True, slots=True)
class Job:
    """One block to compile. code: its guest bytes; count: instructions; record: hva and generation of the old block."""

    record: int
    generation: int
    pc: int
    mode: int
    code: bytes
    count: int


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


class HotBlocks:
    """The sampler thread of one vCPU and its worker process. command: starts the worker."""

    def __init__(self, vcpu: VCpu, command: list[str]) -> None:
        self._vcpu = vcpu
        self._machine = vcpu.machine
        self._command = command
        self._worker: subprocess.Popen[bytes] | None = None
        self._seen: Counter[tuple[int, int, int]] = Counter()
        self._jobs: dict[int, Job] = {}
        self._lock = threading.Lock()
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
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()

    # --- sampling -----------------------------------------------------------------------------------------------------
    def _run(self) -> None:
        request = self._machine.runtime.function("hot_request", 1)
        env = self._vcpu.env.address
        while not self._stop.wait(INTERVAL):
            request(env)
            self._collect()

    def _collect(self) -> None:
        cpu = self._vcpu.cpu
        count = cpu.get("sample_count")
        for n in range(max(self._read, count - SAMPLE_RING), count):
            self._sampled(cpu.get("samples", n & (SAMPLE_RING - 1)))
        self._read = count

    def _sampled(self, record: int) -> None:
        block = View(BLOCK, record)
        if not block.get("valid") or block.get("gpa2") != (1 << 64) - 1 or block.get("hot"):
            return
        key = (block.get("gpa"), block.get("pc"), block.get("mode"))
        self._seen[key] += 1
        if self._seen[key] < THRESHOLD:
            return
        with self._lock:
            if len(self._jobs) >= PENDING or record in self._jobs:
                return
        job = self._job(block, record)
        if job is not None:
            self._submit(job)

    def _job(self, block: View, record: int) -> Job | None:
        hva = self._machine.runtime.call("ram_hva", self._vcpu.env.address, block.get("gpa"))
        if hva in (-1, 0):
            return None
        code = ctypes.string_at(hva, block.get("size"))
        generation = self._machine.view.get("generation")
        return Job(record, generation, block.get("pc"), block.get("mode"), code, block.get("insns"))

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
                    self._install(job, answer, answer.stencil, answer.form)

    def _install(self, job: Job, answer: Answer, stencil: Stencil, form: Form) -> None:
        tables, runtime = self._machine.tables, self._machine.runtime
        block = View(BLOCK, job.record)
        hva = runtime.call("ram_hva", self._vcpu.env.address, block.get("gpa"))
        pattern = tables.pattern_offset(job.mode, job.code[answer.last :])
        form_offset = tables.form_offset(form)
        if pattern < 0 or form_offset < 0 or hva in (-1, 0) or ctypes.string_at(hva, len(job.code)) != job.code:
            return
        try:
            index = tables.set_scratch(stencil)
        except TablesError:
            return
        self.installed += runtime.call(
            "hot_install", self._vcpu.env.address, job.record, job.generation, index, answer.last, hva + answer.last,
            pattern, form_offset,
        )  # fmt: skip
