"""The accelerator: run-time object, tables, frontend and one vCPU, wired to the machine's ports, memory and local APIC.

A warm start imports neither capstone nor the frontend's chapters nor LLVM's optimizer: all that is behind the first
unseen encoding (`_translator`). The tables are loaded from the cache on disk and saved at the end if they grew.
"""

import ctypes
import secrets
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from frontends.x86.cpuid import CpuModel, leaves, table
from frontends.x86.rare_msrs import RareMsrs
from frontends.x86.recipe import RUNTIME
from frontends.x86.state import STATE, Mode
from hw.core.clock import HostClock
from hw.core.log import GuestLog
from tcg.cli.options import RunConfig
from tcg.cli.progress import Progress
from tcg.cli.x86_dump import dump
from tcg.cli.x86_state import enter_kernel
from tcg.exec.cache import TableCache
from tcg.exec.hot import HotBlocks
from tcg.exec.hot_store import HotStore
from tcg.exec.machine import NativeMachine, RamRange
from tcg.exec.memory_map import Mapping
from tcg.exec.translate import Compiler, Translator
from tcg.exec.vcpu import VCpu
from tcg.runtime.layout import Callback
from tcg.runtime.object import load

if TYPE_CHECKING:
    from tcg.cli.tracing import Tracing

_READ_CR8, _WRITE_CR8, _RANDOM = int(Callback.GUEST), int(Callback.GUEST) + 1, int(Callback.GUEST) + 16
_STEP_MODES = int(Mode.STEP)
_WORTH_TELLING_S = 0.3  # a few encodings that are new need no line of their own


class PortBus(Protocol):
    def read(self, port: int, size: int) -> int: ...
    def write(self, port: int, size: int, value: int) -> None: ...


class MemoryBus(Protocol):
    def mmio_read(self, gpa: int, size: int) -> int: ...
    def mmio_write(self, gpa: int, size: int, value: int) -> None: ...


class Apic(Protocol):
    cr8: int

    def ack(self) -> int: ...
    def read_msr(self, index: int) -> int | None: ...
    def write_msr(self, index: int, value: int) -> bool: ...


@dataclass(frozen=True, slots=True)
class Ports:
    """What the vCPU reaches of the machine, all of it under `lock`."""

    ports: PortBus
    memory: MemoryBus
    lapic: Apic
    lock: threading.RLock


class TscRate:
    """The host's TSC frequency, measured over the time since this was made: exact to 10^-5 after some milliseconds."""

    def __init__(self, rdtsc: "ctypes._CFuncPtr") -> None:  # type: ignore[name-defined]
        self._rdtsc = rdtsc
        self._ns = time.monotonic_ns()
        self._ticks = rdtsc()

    def hz(self) -> int:
        while (elapsed := time.monotonic_ns() - self._ns) < 2_000_000:
            time.sleep(0.0005)
        return int((self._rdtsc() - self._ticks) * 1_000_000_000 // elapsed)


class Engine:
    """One vCPU and all that translates for it."""

    def __init__(self, config: RunConfig, model: CpuModel, ports: Ports, clock: HostClock, log: GuestLog) -> None:
        self.config = config
        self.log = log
        self._ports = ports
        self.progress = Progress()
        runtime = load(RUNTIME, progress=self.progress.show)
        self.progress.erase()
        self.rate = TscRate(runtime.function("host_tsc", 0))
        self.machine = NativeMachine(runtime, config.tb_size)
        self.machine.view.set("step_modes", _STEP_MODES)
        self.vcpu = VCpu(self.machine, STATE)
        env = self.vcpu.env
        records = leaves(model)
        content = table(records)
        self._cpuid = Mapping(len(content))
        self._cpuid.view[: len(content)] = content
        env.set("cpuid_table", self._cpuid.hva)
        env.set("cpuid_count", len(records))
        self.features = model.features
        self._clock = clock
        clock.tsc_source = self._guest_tsc
        self._translator_: Translator | None = None
        self.translation_seconds = 0.0  # in callbacks of the block assembler
        self.hot: HotBlocks | None = None
        self.cache = TableCache(self.machine.tables, "x86_64", self.features)
        if not self.cache.load():
            if not config.log_items:  # logs want to see every block
                self._sow()
            self._make_fixed()
        self._handlers()
        self.tracing: Tracing | None = None
        if config.log_items:
            from tcg.cli import tracing

            self.tracing = tracing.Tracing(self, config)

    # --- the guest's view
    def _guest_tsc(self) -> int:
        return int(self.machine.runtime.call("host_tsc") + self.vcpu.env.get("tsc_offset")) & (1 << 64) - 1

    def enter(self, entry: "object") -> None:
        """Start the vCPU at a boot protocol's state. The vCPU is not running."""
        from hw.firmware import CpuEntry

        assert isinstance(entry, CpuEntry)
        enter_kernel(self.vcpu, entry)
        self.vcpu.env.set("tsc_offset", -self.machine.runtime.call("host_tsc"))
        self._clock.tsc_hz = self.rate.hz()

    def set_ram(self, ranges: Iterable[RamRange]) -> None:
        self.machine.set_ram(ranges)
        self.machine.runtime.call("tlb_flush_all", self.vcpu.env.address)

    # --- translation
    @property
    def translator(self) -> Translator:
        if self._translator_ is None:
            from frontends.x86.frontend import X86Frontend
            from tcg.opt.pipeline import optimize

            self._translator_ = Translator(X86Frontend(self.features), self.machine.tables, _compiler, optimize)
        return self._translator_

    @property
    def translator_if_used(self) -> Translator | None:
        return self._translator_

    def _sow(self) -> None:
        """A first boot: have worker processes compile what boots are known to need."""
        from tcg.exec.seeds import Seeds, worker_count

        count = worker_count()
        features = ",".join(sorted(self.features))
        worker = [sys.executable, "-m", "tcg.cli.seed_worker"]
        seeds = Seeds(self.machine.tables, [[*worker, str(n), str(count), features] for n in range(count)])
        self.translator.premade = seeds

    def _make_fixed(self) -> None:
        from backends.llvm.gates import fixed_stencils
        from backends.llvm.stencils import StencilCompiler

        for name, stencil in fixed_stencils(StencilCompiler()).items():
            self.machine.tables.set_fixed(name, stencil)

    def _pattern_miss(self, hva: int, size: int, pc: int) -> int:
        start = time.perf_counter()
        code = ctypes.string_at(hva, size)
        found = self.translator.miss(code, pc & (1 << 64) - 1, self.vcpu.env.get("mode"))
        self._tell_progress()
        self.translation_seconds += time.perf_counter() - start
        return 1 if found else 2

    def _stencil_miss(self, hva: int, count: int, _c: int) -> int:
        start = time.perf_counter()
        with self._time_stands_still():
            self.translator.stencils(self.machine.tables.missing(hva, count))
        self._tell_progress()
        self.translation_seconds += time.perf_counter() - start
        return 1

    def _tell_progress(self) -> None:
        if self.progress.enabled and sum(self.translator.times.seconds.values()) > _WORTH_TELLING_S:
            tables = self.machine.tables
            counts = f"{tables.pattern_count()} patterns, {tables.stencil_count()} stencils"
            self.progress.show(f"translating what the caches do not have yet: {counts}")

    @contextmanager
    def _time_stands_still(self) -> Iterator[None]:
        """Guest time does not pass while LLVM works: a first boot would miss timer interrupts that it waits for.

        The TSC is held back by what the clock says it stood still, or the kernel's clocksource watchdog sees them part.
        """
        env = self.vcpu.env
        self._clock.pause()
        try:
            yield
        finally:
            stood = self._clock.resume()
            env.set("tsc_offset", env.get("tsc_offset") - stood * self._clock.tsc_hz // 1_000_000_000)

    # --- callbacks
    def _handlers(self) -> None:
        ports, memory, lapic, lock = self._ports.ports, self._ports.memory, self._ports.lapic, self._ports.lock
        pio_read, pio_write = ports.read, ports.write
        mmio_read, mmio_write = memory.mmio_read, memory.mmio_write
        env = self.vcpu.env
        rare = RareMsrs()

        def port_read(port: int, size: int, _c: int) -> int:
            with lock:
                return pio_read(port, size)

        def port_write(port: int, size: int, value: int) -> int:
            with lock:
                pio_write(port, size, value)
            return 0

        def memory_read(gpa: int, size: int, _c: int) -> int:
            with lock:
                return mmio_read(gpa, size)

        def memory_write(gpa: int, size: int, value: int) -> int:
            with lock:
                mmio_write(gpa, size, value & (1 << 8 * size) - 1)
            return 0

        def acknowledge(_a: int, _b: int, _c: int) -> int:
            with lock:
                return lapic.ack()

        def msr_read(number: int, _b: int, _c: int) -> int:
            value = rare.read(number)
            if value is None:
                with lock:
                    value = lapic.read_msr(number)
            if value is None:
                return 0
            env.set("scratch", value)
            return 1

        def msr_write(number: int, value: int, _c: int) -> int:
            if rare.write(number, value & (1 << 64) - 1):
                return 1
            with lock:
                return int(lapic.write_msr(number, value & (1 << 64) - 1))

        def read_cr8(_a: int, _b: int, _c: int) -> int:
            with lock:
                return lapic.cr8

        def write_cr8(value: int, _b: int, _c: int) -> int:
            with lock:
                lapic.cr8 = value
            return 0

        self.vcpu.handlers.update(
            {
                Callback.PATTERN_MISS: self._pattern_miss,
                Callback.STENCIL_MISS: self._stencil_miss,
                Callback.PORT_READ: port_read,
                Callback.PORT_WRITE: port_write,
                Callback.MMIO_READ: memory_read,
                Callback.MMIO_WRITE: memory_write,
                Callback.ACKNOWLEDGE: acknowledge,
                Callback.MSR_READ: msr_read,
                Callback.MSR_WRITE: msr_write,
                _READ_CR8: read_cr8,
                _WRITE_CR8: write_cr8,
                _RANDOM: lambda _a, _b, _c: secrets.randbits(64) - (1 << 63),
            }
        )

    # --- the end
    def start_hot_blocks(self) -> None:
        """Begin to sample for hot blocks; logs want blocks as they were translated."""
        if self.config.hot_blocks and not self.config.log_items:
            command = [sys.executable, "-m", "tcg.cli.hot_worker", ",".join(sorted(self.features))]
            store = HotStore(self.cache.path.with_name(self.cache.path.name.replace("tables-", "hot-")), self.cache.key)
            self.hot = HotBlocks(self.vcpu, command, store)
            self.hot.start()

    def report_error(self) -> None:
        """A Python exception stopped the vCPU: tell what, where in the guest, and the state."""
        error = self.vcpu.error
        self.progress.erase()
        print("\ntessera: internal error, the machine stops", file=sys.stderr)
        if error is not None:
            traceback.print_exception(error, file=sys.stderr)
        print(dump(self.vcpu, lazy_flags=True), file=sys.stderr)

    def close(self) -> None:
        """Save what was learnt; print statistics if asked."""
        self.progress.erase()
        if self.hot is not None:
            self.hot.close()
        if self.tracing is not None:
            self.tracing.close()
        if self._translator_ is not None and self._translator_.premade is not None:
            self._translator_.premade.close()
        # After an error of our own the tables may be half of something: let the next run make them again.
        if self._translator_ is not None and self._translator_.changed and self.vcpu.error is None:
            self.cache.save()
        if self.config.stats:
            from tcg.cli.stats import report

            print(report(self), file=sys.stderr)


def _compiler() -> Compiler:
    from backends.llvm.stencils import StencilCompiler

    return StencilCompiler()
