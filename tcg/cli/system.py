"""`tessera run`: put the parts together, run them, tear them down. The only module that sees all four packages.

Threads: the main thread runs the main loop (timers, character devices, signals); one thread runs the vCPU. Devices are
entered under the machine lock. Nothing below raises for what a guest does; what ends the run is `Ending`.
"""

import contextlib
import gc
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

from frontends.x86.cpuid import CpuError
from frontends.x86.cpuid import parse as parse_cpu
from hw.core.chardev import Chardev, FdChardev
from hw.core.chardev_open import ChardevError, open_chardev
from hw.core.chardev_stdio import MuxPort
from hw.core.clock import HostClock, TimerQueue
from hw.core.log import GuestLog
from hw.core.mainloop import MainLoop
from hw.firmware import (
    BootError,
    CpuEntry,
    FirmwareConfig,
    SplitRam,
    fw_cfg_contents,
    install_q35_tables,
    load_kernel,
    q35_memory_map,
)
from hw.machines.q35 import Q35, Q35Config
from tcg.cli.board_config import CpuLines, debug_exits, rtc
from tcg.cli.engine import Engine, Ports
from tcg.cli.options import OptionError, RunConfig
from tcg.exec.memory_map import Mapping
from tcg.exec.vcpu import StopCause
from tcg.runtime.layout import Interrupt

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(slots=True)
class Ending:
    """How the run ends: exit status, whether it is over, and whether the guest asked for a reset instead."""

    status: int = 0
    reset: bool = False
    over: bool = False


class System:
    """One machine and its engine."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.ending = Ending()
        self.paused = False
        self._work: deque[Callable[[], None]] = deque()
        self._looks = 0
        self._looked_at = threading.Condition()
        model = parse_cpu(",".join((config.cpu, *config.cpu_flags)))
        memory_map = q35_memory_map(config.ram_size)
        try:
            self.ram = Mapping(config.ram_size)
        except MemoryError as error:
            raise BootError(f"-m {config.ram_size >> 20}M: the host does not give {error}; use a smaller -m") from None
        self.ram.advise_huge_pages()
        self.memory_map = memory_map
        self.lock = threading.RLock()
        self.clock = HostClock()
        self.timers = TimerQueue()
        self.loop = MainLoop(self.lock, self.timers, self.clock)
        self.log = GuestLog()
        self.lines = CpuLines()
        self.chardevs = [self._open(spec) for spec in self._serial_specs()]
        self.board: Q35 = Q35(
            Q35Config(
                rtc=rtc(config),
                debug_exits=debug_exits(config),
            ),
            clock=self.clock, ram=self.ram.view, cpus=[self.lines], serial=self.chardevs, log=self.log, lock=self.lock,
            timers=self.timers,
        )  # fmt: skip
        self.board.on_shutdown = self._on_shutdown
        self.board.on_reset = self._on_reset
        self.firmware = FirmwareConfig(serial_ports=tuple(n for n, c in enumerate(self.chardevs) if c is not None))
        self.guest_ram = SplitRam(self.ram.view, memory_map.low_size)
        for name, content in fw_cfg_contents(memory_map, self.firmware).items():
            self.board.fw_cfg.add_file(name, content)
        entry = self._load()
        ports = Ports(self.board.ports, self.board.memory, self.board.lapics[0], self.lock)
        self.engine = Engine(config, model, ports, self.clock, self.log)
        self.lines.request = self.engine.vcpu.request
        self.lines.withdraw = self.engine.vcpu.withdraw
        self.board.memory.listeners.append(lambda _view: self._map_ram())
        self.board.memory.ram_written.append(self.engine.machine.ram_written)
        self._map_ram()
        self.engine.enter(entry)
        if self.board.lapics[0].pending():
            self.lines.raise_intr()
        for chardev in self.chardevs:
            if chardev is not None:
                self.loop.add_chardev(chardev)
                self._attach_monitor(chardev)
                self._guard_terminal(chardev)

    # --- construction
    def _serial_specs(self) -> tuple[str, ...]:
        if self.config.serial:
            return self.config.serial
        if self.config.nographic:
            return ("mon:stdio",)
        return () if self.config.nodefaults else ("null",)

    def _open(self, spec: str) -> Chardev | None:
        return open_chardev(spec, on_exit=self.quit, notice=lambda text: print(text, file=sys.stderr, flush=True))

    def _attach_monitor(self, chardev: Chardev) -> None:
        if isinstance(chardev, MuxPort):
            from tcg.cli.monitor import Monitor

            Monitor(self, chardev._mux.add_port())

    def _guard_terminal(self, chardev: Chardev) -> None:
        """The guest's output and the progress line may meet on one terminal."""
        device = chardev._mux.backend if isinstance(chardev, MuxPort) else chardev
        progress = self.engine.progress
        if isinstance(device, FdChardev) and progress.shares_terminal_with(device.write_fd):
            device.before_output = progress.guest_output

    def _load(self) -> CpuEntry:
        """Tables and kernel into RAM: at the start and at each reset."""
        rsdp = install_q35_tables(self.guest_ram, self.memory_map, self.firmware)
        if self.config.demo:
            from hw.firmware.demo import load_demo

            return load_demo(self.guest_ram, self.memory_map, self.config.append)
        if self.config.kernel is None:
            raise BootError("nothing to boot: give a kernel with -kernel FILE, or -demo for the embedded demo guest")
        return load_kernel(
            self.config.kernel, self.config.initrd, self.config.append, self.guest_ram, self.memory_map, rsdp=rsdp
        )

    def _map_ram(self) -> None:
        hva = self.ram.hva
        view = self.board.memory.view
        self.engine.set_ram(
            (r.gpa, r.size, hva + r.ram_offset, r.kind.name == "ROM") for r in view if r.kind.name in ("RAM", "ROM")
        )

    # --- what ends, stops or resets a run
    def _on_shutdown(self, cause: str, code: int | None) -> None:
        self.ending.status = code if code is not None else 0
        self._end(stays=cause != "debug-exit" and not self.config.shutdown)

    def _on_reset(self, cause: str) -> None:
        if self.config.reboot:
            self.ending.reset = True
            self._interrupt()
        else:
            self._end(stays=not self.config.shutdown)

    def _end(self, *, stays: bool) -> None:
        """The machine is off; with -no-shutdown it stays, stopped, for the monitor."""
        if stays:
            self.pause()
        else:
            self.ending.over = True
        self._interrupt()

    def quit(self, status: int = 0) -> None:
        """End the run now. From any thread and from signal handlers."""
        self.ending = Ending(status, over=True)
        self._interrupt()

    def pause(self) -> None:
        """Stop the vCPU and the machine's time; what is queued for the vCPU's thread still runs."""
        self.paused = True
        self._interrupt()

    def resume(self) -> None:
        self.paused = False
        self._interrupt()

    def on_vcpu(self, work: Callable[[], None]) -> None:
        """Run `work` on the vCPU's thread between two blocks, under the machine lock. From any thread."""
        self._work.append(work)
        self._interrupt()

    def _interrupt(self) -> None:
        """Let the vCPU's thread look at everything again."""
        self.engine.vcpu.request(Interrupt.STOP)
        with self._looked_at:
            self._looks += 1
            self._looked_at.notify_all()

    def _run_vcpu(self) -> None:
        """The vCPU thread's body: runs, resets, stops and goes on, until the machine ends."""
        try:
            while not self.ending.over:
                cause = self.engine.vcpu.run()
                if cause is StopCause.HOST_ERROR:
                    self.engine.report_error()
                    self.ending.status = 1
                    return
                if cause is StopCause.SHUTDOWN:
                    self._on_reset("triple-fault")
                self._stopped()
        except BaseException as error:
            self.engine.vcpu.error = error
            self.engine.report_error()
            self.ending.status = 1
        finally:
            self.loop.stop()

    def _stopped(self) -> None:
        """The vCPU is between two blocks: do what is wanted of it there, and stay while the machine is paused."""
        frozen_at: int | None = None
        while not self.ending.over:
            seen = self._looks
            while self._work:
                with self.lock:
                    self._work.popleft()()
            if self.ending.reset:
                self.ending.reset = False
                self._reset()
            if not self.paused or self.ending.over:
                break
            if frozen_at is None:
                frozen_at = self.engine.machine.runtime.call("host_tsc")
                self.clock.pause()
            with self._looked_at:
                while self._looks == seen:
                    self._looked_at.wait()
        if frozen_at is not None:
            self.clock.resume()
            env = self.engine.vcpu.env
            passed = self.engine.machine.runtime.call("host_tsc") - frozen_at
            env.set("tsc_offset", env.get("tsc_offset") - passed)

    def _reset(self) -> None:
        with self.lock:
            self.board.reset()
            entry = self._load()
            self.engine.machine.flush()
            self.engine.enter(entry)

    def run(self) -> int:
        """Run to the end; the exit status."""
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)
        thread = threading.Thread(target=self._run_vcpu, name="vcpu0", daemon=True)
        thread.start()
        self.engine.start_hot_blocks()
        try:
            self.loop.run_until_stopped()
            thread.join(2.0)
        finally:
            self.close()
        return self.ending.status

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        # Not through sys.stderr: this may have interrupted a write to it.
        message = f"{self.engine.progress.eraser}tessera: terminating on signal {number}\n"
        with contextlib.suppress(OSError):
            os.write(2, message.encode())
        self.quit(0)

    def close(self) -> None:
        """Flush what the guest printed, restore the terminal, save the caches."""
        self.board.flush_output()
        for chardev in self.chardevs:
            if chardev is not None:
                chardev.close()
        self.engine.close()


def _not_yet_running(number: int, _frame: FrameType | None) -> None:
    """A signal before the guest runs: end, and let the terminal be restored on the way out."""
    os.write(2, f"tessera: terminating on signal {number}\n".encode())
    sys.exit(0)


def run_system(config: RunConfig) -> int:
    """Build and run; errors of the command line or the host become one clear line and status 1."""
    sys.setswitchinterval(0.0005)
    gc.disable()  # a collection would hold up a callback for milliseconds; references count without it
    for number in _SIGNALS:
        signal.signal(number, _not_yet_running)
    try:
        system = System(config)
    except (BootError, ChardevError, CpuError, OptionError, OSError) as error:
        print(f"tessera: {error}", file=sys.stderr)
        return 1
    status = system.run()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)
