"""The monitor behind Ctrl-A c: a line editor of the simplest sort, and commands named and answering as QEMU's.

Keys arrive on the main loop's thread, under the machine lock. A command that looks at the machine runs on the vCPU's
thread between two blocks (`System.on_vcpu`), so that what it sees is one state; its answer and the next prompt follow
from there. `quit` acts at once, whatever the vCPU does.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hw.core.chardev_stdio import MuxPort
from tcg.cli import board_info
from tcg.cli.examine import ExamineError, Examiner

if TYPE_CHECKING:
    from tcg.cli.system import System

PROMPT = "(tessera) "


@dataclass(frozen=True, slots=True)
class Command:
    """One row: names (the first is shown), argument text, help, what it does. It gets the words after the name."""

    names: tuple[str, ...]
    arguments: str
    help: str
    act: Callable[[Monitor, list[str]], str]
    at_once: bool = False


class Monitor:
    """One monitor on its multiplexer port."""

    def __init__(self, system: System, port: MuxPort) -> None:
        self.system = system
        self._port = port
        self._line = bytearray()
        self._greeted = False
        self._examiner: Examiner | None = None
        port.on_input = self._input
        port.on_focus = self._focused

    @property
    def examiner(self) -> Examiner:
        if self._examiner is None:
            self._examiner = Examiner(self.system.engine.vcpu.env, self.system.board.memory)
        return self._examiner

    # --- the terminal

    def _focused(self) -> None:
        if not self._greeted:
            from tcg.cli.main import VERSION

            self._write(f"Tessera {VERSION} monitor - type 'help' for more information\n")
            self._greeted = True
        self._write(PROMPT + self._line.decode(errors="replace"))

    def _input(self, data: bytes) -> None:
        for byte in data:
            if byte in (10, 13):
                self._write("\n")
                line = self._line.decode(errors="replace").strip()
                self._line.clear()
                self._command(line)
            elif byte in (8, 127):
                if self._line:
                    self._line.pop()
                    self._write("\b \b")
            elif byte >= 32 and len(self._line) < 4096:
                self._line.append(byte)
                self._port.write(bytes((byte,)))

    def _write(self, text: str) -> None:
        self._port.write(text.replace("\n", "\r\n").encode())

    def _answer(self, text: str) -> None:
        self._write((text + "\n" if text else "") + PROMPT)

    # --- commands

    def _command(self, line: str) -> None:
        words = line.split()
        if not words:
            self._write(PROMPT)
            return
        name, _, options = words[0].partition("/")
        row = BY_NAME.get(name)
        if row is None:
            near = difflib.get_close_matches(name, BY_NAME, 1)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            self._answer(f"unknown command: '{name}'{hint}")
            return
        arguments = (["/" + options] if options else []) + words[1:]
        if row.at_once:
            self._answer(row.act(self, arguments))
            return
        self.system.on_vcpu(lambda: self._answer(row.act(self, arguments)))


def _help(_monitor: Monitor, words: list[str]) -> str:
    rows = [row for row in COMMANDS if not words or words[0] in row.names]
    if not rows:
        return f"unknown command: '{words[0]}'"
    lines = [f"{'|'.join(row.names)} {row.arguments}".rstrip() + f" -- {row.help}" for row in rows]
    if words and words[0] == "info":
        lines += [f"info {name} -- {text}" for name, (text, _) in INFO.items()]
    return "\n".join(lines)


def _quit(monitor: Monitor, _words: list[str]) -> str:
    monitor.system.quit()
    return ""


def _info(monitor: Monitor, words: list[str]) -> str:
    if not words:
        return "\n".join(f"info {name} -- {text}" for name, (text, _) in INFO.items())
    found = INFO.get(words[0])
    if found is None:
        return f"unknown command: 'info {words[0]}'"
    return found[1](monitor)


def _registers(monitor: Monitor) -> str:
    from tcg.cli.x86_dump import dump

    return "\nCPU#0\n" + dump(monitor.system.engine.vcpu)


def _jit(monitor: Monitor) -> str:
    from tcg.cli.stats import report

    return report(monitor.system.engine)


def _version(_monitor: Monitor) -> str:
    from tcg.cli.main import VERSION

    return VERSION


def _status(monitor: Monitor) -> str:
    return f"VM status: {'paused' if monitor.system.paused else 'running'}"


def _stop(monitor: Monitor, _words: list[str]) -> str:
    monitor.system.pause()
    return ""


def _cont(monitor: Monitor, _words: list[str]) -> str:
    monitor.system.resume()
    return ""


def _reset(monitor: Monitor, _words: list[str]) -> str:
    monitor.system.board.on_reset("host-qmp-system-reset")
    return ""


def _powerdown(monitor: Monitor, _words: list[str]) -> str:
    monitor.system.board.power_button()
    return ""


def _nmi(monitor: Monitor, _words: list[str]) -> str:
    monitor.system.board.nmi()
    return ""


def _examine(physical: bool) -> Callable[[Monitor, list[str]], str]:
    def act(monitor: Monitor, words: list[str]) -> str:
        try:
            return monitor.examiner.examine(words, physical=physical)
        except ExamineError as error:
            return str(error)

    return act


INFO: dict[str, tuple[str, Callable[[Monitor], str]]] = {
    "irq": ("show the interrupts statistics", lambda m: board_info.irq(m.system.board)),
    "jit": ("show what the translator did", _jit),
    "lapic": ("show local apic state", lambda m: board_info.lapic(m.system.board.lapics[0])),
    "mtree": ("show the address spaces, flat", lambda m: board_info.mtree(m.system.board)),
    "pci": ("show PCI info", lambda m: board_info.pci(m.system.board)),
    "pic": ("show PIC and I/O APIC state", lambda m: board_info.pic(m.system.board)),
    "registers": ("show the cpu registers", _registers),
    "status": ("show the current VM status (running|paused)", _status),
    "version": ("show the version", _version),
}
COMMANDS = (
    Command(("help", "?"), "[cmd]", "show the help", _help, at_once=True),
    Command(("info", "i"), "[subcommand]", "show what the machine is doing", _info),
    Command(("quit", "q"), "", "quit the emulator", _quit, at_once=True),
    Command(("stop", "s"), "", "stop emulation", _stop),
    Command(("cont", "c"), "", "resume emulation", _cont),
    Command(("system_reset",), "", "reset the system", _reset),
    Command(("system_powerdown",), "", "send system power down event", _powerdown),
    Command(("nmi",), "", "inject an NMI", _nmi),
    Command(("x",), "/fmt addr", "virtual memory dump starting at 'addr'", _examine(False)),
    Command(("xp",), "/fmt addr", "physical memory dump starting at 'addr'", _examine(True)),
)
BY_NAME = {name: row for row in COMMANDS for name in row.names}
