"""The machines compared: the host itself, the peer emulator and ours, and how a guest command is run on each.

One command line serves both emulators, so that they have the same devices: -nodefaults, because QEMU would add a
display and a network card. What differs is named in `Emulator`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

RAM_MIB = 512
BOOT_TIMEOUT_S = 120.0

_CONSOLE = ("-display", "none", "-serial", "stdio", "-no-reboot")
_TOOL_DIRECTORY = Path(__file__).parent.parent / ".venv" / "bin"


@dataclass(frozen=True, slots=True)
class Emulator:
    """One emulator: its label in the table, its command, and arguments that only it needs."""

    label: str
    command: str
    extra: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def found(self) -> str | None:
        """The command's path: as given, from PATH, or from the project's venv."""
        return shutil.which(self.command) or shutil.which(self.command, path=str(_TOOL_DIRECTORY))

    def argv(self, *arguments: str) -> list[str]:
        """The whole command line: q35, one vCPU, the serial port on standard input and output."""
        machine = ["-M", "q35", "-cpu", "max", "-smp", "1", "-m", str(RAM_MIB), "-nodefaults"]
        return [self.found() or self.command, *machine, *_CONSOLE, *self.extra, *arguments]


def peer(command: str) -> Emulator:
    """QEMU, never with KVM."""
    return Emulator("qemu", command, ("-accel", "tcg"))


def ours(command: str, environment: Mapping[str, str] | None = None) -> Emulator:
    """Our own emulator."""
    return Emulator("tessera", command, (), environment or {})


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run of an emulator: what the guest printed, how long the process lived, and its exit status."""

    output: str
    seconds: float
    status: int | None  # None: it did not end in time and was stopped

    @property
    def ended_well(self) -> bool:
        """The guest powered off and the emulator said so."""
        return self.status == 0


@contextmanager
def running(emulator: Emulator, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A started emulator; whatever happens, it and its children are gone at the end."""
    process = subprocess.Popen(
        emulator.argv(*arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env=os.environ | dict(emulator.environment),
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def run(emulator: Emulator, *arguments: str, timeout: float = BOOT_TIMEOUT_S) -> Outcome:
    """Run to the end, or for ``timeout`` seconds."""
    start = time.monotonic()
    with running(emulator, *arguments) as process:
        try:
            output, _ = process.communicate(timeout=timeout)
            status: int | None = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            status = None
    return Outcome(output.decode(errors="replace").replace("\r", ""), time.monotonic() - start, status)


def linux(guest: Path, initrd: str, command: str) -> list[str]:
    """Arguments that boot the Debian kernel, run ``command`` in the guest and power off."""
    words = f"console=ttyS0 quiet tessera.quiet tessera.run={urllib.parse.quote(command, safe=',:/')}"
    return ["-kernel", str(guest / "vmlinuz"), "-initrd", str(guest / initrd), "-append", words]


def run_native(program: Path, names: Sequence[str]) -> str:
    """Run benchmarks on the host and return what they printed."""
    done = subprocess.run([str(program), "run", ",".join(names)], capture_output=True, text=True, check=False)
    return done.stdout
