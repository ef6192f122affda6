"""The console as QEMU's users know it: Ctrl-A keys, signals, and a terminal left as it was found."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import tiny
from .harness import Emulator

# Says "up", then sends back each byte that comes in, plus one.
ECHO = """
    mov dx, 0x3f8
    mov al, 'u'
    out dx, al
    mov al, 'p'
    out dx, al
again:
    mov dx, 0x3fd
    in al, dx
    test al, 1
    jz again
    mov dx, 0x3f8
    in al, dx
    inc al
    out dx, al
    jmp again
"""


class Terminal:
    """An emulator on a pseudo-terminal of its own."""

    def __init__(self, command: list[str]) -> None:
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(command, stdin=self.slave, stdout=self.slave, stderr=self.slave)
        self.seen = b""

    def wait_for(self, text: bytes, timeout: float = 30.0) -> None:
        """Read until ``text`` was seen; what follows it stays to be seen."""
        end = time.monotonic() + timeout
        while text not in self.seen:
            rest = end - time.monotonic()
            assert rest > 0 and select.select([self.master], [], [], rest)[0], (text, self.seen)
            self.seen += os.read(self.master, 4096)
        self.seen = self.seen[self.seen.index(text) + len(text) :]

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def wait(self) -> int:
        """The exit status; what the emulator still prints is read, or it could not end."""
        end = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < end:
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 4096)
        return self.process.wait(0)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal(emulator: Emulator, tmp_path: Path) -> Iterator[Terminal]:
    """A guest that echoes, up and running."""
    kernel = tiny.assemble(ECHO, tmp_path)
    made = Terminal(tiny.command(emulator, kernel, "-serial", "mon:stdio"))
    try:
        made.wait_for(b"up")
        yield made
    finally:
        made.close()


def test_keys_reach_the_guest(terminal: Terminal) -> None:
    terminal.type(b"AC")
    terminal.wait_for(b"B")
    terminal.wait_for(b"D")


def test_ctrl_c_is_the_guests(terminal: Terminal) -> None:
    terminal.type(b"\x03")
    terminal.wait_for(b"\x04")


def test_ctrl_a_x_ends(terminal: Terminal) -> None:
    terminal.type(b"\x01x")
    assert terminal.wait() == 0
    assert b"terminated" in terminal.seen.lower()


def test_ctrl_a_twice_is_one(terminal: Terminal) -> None:
    terminal.type(b"\x01\x01")
    terminal.wait_for(b"\x02")


def test_ctrl_a_h_helps(terminal: Terminal) -> None:
    terminal.type(b"\x01h")
    terminal.wait_for(b"exit")


def test_ctrl_a_c_goes_to_the_monitor_and_back(terminal: Terminal) -> None:
    terminal.type(b"\x01c")
    terminal.wait_for(b") ")  # "(qemu) " or "(tessera) "
    terminal.type(b"\x01c")
    terminal.type(b"E")
    terminal.wait_for(b"F")


def test_monitor_quits(terminal: Terminal) -> None:
    terminal.type(b"\x01c")
    terminal.wait_for(b") ")
    terminal.type(b"quit\r")
    assert terminal.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_and_restore_the_terminal(terminal: Terminal, number: signal.Signals) -> None:
    assert termios.tcgetattr(terminal.slave) != terminal.before, "the terminal is raw while the guest runs"
    terminal.process.send_signal(number)
    assert terminal.wait() == 0
    assert termios.tcgetattr(terminal.slave) == terminal.before


def test_ctrl_a_x_restores_the_terminal(terminal: Terminal) -> None:
    terminal.type(b"\x01x")
    terminal.wait()
    assert termios.tcgetattr(terminal.slave) == terminal.before
