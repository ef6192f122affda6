"""Boots a guest under an emulator on a pseudo-terminal and talks to its shell, as a person would."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import pexpect

GUEST_FILES = Path(__file__).parents[2] / "guest"

# Ample even for a first boot without caches on a loaded machine: it only ends a guest that hangs.
BOOT_TIMEOUT_S = 120.0
COMMAND_TIMEOUT_S = 60.0
PROMPT = re.escape("/ # ")
# The guest's terminal adds a carriage return, and the host's pseudo-terminal may add a further one.
NEWLINE = r"\r+\n"


@dataclass(frozen=True, slots=True)
class Emulator:
    """An emulator: what tests call it, its command, and arguments that only it needs."""

    name: str
    command: str
    extra: tuple[str, ...] = ()

    def missing(self) -> str | None:
        """Why it cannot run here, or None."""
        if self.name == "tessera" and importlib.util.find_spec("tcg.cli.main") is None:
            return "tcg.cli.main does not exist yet"
        return None if self.path() else f"{self.command} is not installed"

    def path(self) -> str | None:
        """The command: the one beside this Python first, so that a venv is tested by its own."""
        return shutil.which(self.command, path=str(Path(sys.executable).parent)) or shutil.which(self.command)


QEMU = Emulator("qemu", "qemu-system-x86_64", ("-accel", "tcg"))
TESSERA = Emulator("tessera", "tessera-system-x86_64")


class GuestError(AssertionError):
    """The guest did not do what was waited for; the message ends with what its console showed last."""


class Guest:
    """A booted guest. Use as a context manager: the emulator is gone afterwards, whatever happened."""

    def __init__(self, emulator: Emulator, *arguments: str, memory_mib: int = 512) -> None:
        """Start ``emulator`` on q35 with its console on a pseudo-terminal.

        With -nodefaults, because QEMU would add a display and a network card.
        """
        machine = ["-M", "q35", "-cpu", "max", "-m", str(memory_mib), "-nodefaults", "-nographic"]
        command = [*machine, "-serial", "mon:stdio", *emulator.extra, *arguments]
        path = emulator.path()
        assert path is not None, emulator.missing()
        self.console = pexpect.spawn(path, command, timeout=BOOT_TIMEOUT_S, encoding="utf-8", codec_errors="replace")
        self.console.setwinsize(50, 250)
        self.console.delaybeforesend = None
        self._log: list[str] = []
        self._lost = False
        self.console.logfile_read = self

    def write(self, text: str) -> None:
        """pexpect's log interface: keep what the console showed."""
        self._log.append(text)

    def flush(self) -> None:
        """pexpect's log interface."""

    @property
    def log(self) -> str:
        """Everything that the console showed so far."""
        return "".join(self._log).replace("\r", "")

    def expect(self, pattern: str, timeout: float = BOOT_TIMEOUT_S) -> re.Match[str]:
        """Wait until the console shows ``pattern`` behind what was matched before."""
        if self._lost:
            raise GuestError("this guest gave no answer before")
        try:
            self.console.expect(pattern, timeout=timeout)
        except (pexpect.TIMEOUT, pexpect.EOF) as error:
            self._lost = True
            raise GuestError(f"{type(error).__name__} instead of {pattern!r}; console:\n{self.log[-3000:]}") from None
        match = self.console.match
        assert isinstance(match, re.Match)
        return match

    def wait_for_shell(self) -> None:
        """Wait for the shell's prompt."""
        self.expect(PROMPT)

    def run(self, command: str, timeout: float = COMMAND_TIMEOUT_S, status: int = 0) -> str:
        """Run a command in the shell and return what it printed; its exit status must be ``status``."""
        # The quotes keep the echo of the typed line from matching.
        self.console.sendline(f"echo BE''GIN; {command}; echo EN''D:$?")
        match = self.expect(rf"BEGIN{NEWLINE}((?s:.*?))END:(\d+){NEWLINE}", timeout)
        self.expect(PROMPT)
        if int(match[2]) != status:
            raise GuestError(f"{command!r} ended with status {match[2]} and said:\n{match[1]}")
        return match[1].replace("\r", "")

    def end(self, command: str = "poweroff -f", timeout: float = 60.0) -> int:
        """Type the command that ends the guest and return the emulator's exit status."""
        self.console.sendline(command)
        return self.wait_for_end(timeout)

    def wait_for_end(self, timeout: float = BOOT_TIMEOUT_S) -> int:
        """Wait until the emulator ends by itself and return its exit status."""
        self.expect_end(timeout)
        self.console.close()
        if self.console.exitstatus is None:
            raise GuestError(f"ended by signal {self.console.signalstatus}; console:\n{self.log[-3000:]}")
        return int(self.console.exitstatus)

    def expect_end(self, timeout: float) -> None:
        """Wait for the end of the emulator's output."""
        try:
            self.console.expect(pexpect.EOF, timeout=timeout)
        except pexpect.TIMEOUT:
            raise GuestError(f"still running; console:\n{self.log[-3000:]}") from None

    def __enter__(self) -> Guest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.console.close(force=True)


def linux(initrd: str = "initrd.gz", append: str = "", run: str | None = None) -> list[str]:
    """Arguments that boot the Debian kernel; with ``run`` the guest runs that command and powers off."""
    words = f"console=ttyS0 {append}"
    if run is not None:
        words += f" quiet tessera.quiet tessera.run={urllib.parse.quote(run)}"
    return ["-kernel", str(GUEST_FILES / "vmlinuz"), "-initrd", str(GUEST_FILES / initrd), "-append", words]


def run_once(emulator: Emulator, command: str, initrd: str = "initrd.gz") -> str:
    """Boot, run one command, power off; return what the command printed. Its status must be 0."""
    with Guest(emulator, *linux(initrd, run=f"echo BEGIN; {command}")) as guest:
        match = guest.expect(rf"BEGIN{NEWLINE}((?s:.*?))tessera\.run: status (\d+)")
        status = guest.wait_for_end()
    if match[2] != "0" or status != 0:
        raise GuestError(f"{command!r}: status {match[2]}, emulator's {status}; output:\n{match[1]}")
    return match[1].replace("\r", "")
