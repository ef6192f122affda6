"""The monitor behind Ctrl-A c: a line editor of the simplest sort and the commands that this machine has so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hw.core.chardev_stdio import MuxPort

if TYPE_CHECKING:
    from tcg.cli.system import System

PROMPT = "(tessera) "
HELP = """\
help                 this list
info registers|jit   the vCPU's registers; translator statistics
info version|status  the version; running or not
quit                 exit
system_powerdown     press the power button
system_reset         reset the machine
nmi                  raise a non-maskable interrupt
"""


class Monitor:
    """One monitor on its multiplexer port; runs on the main loop's thread under the machine lock."""

    def __init__(self, system: System, port: MuxPort) -> None:
        self._system = system
        self._port = port
        self._line = bytearray()
        port.on_input = self._input
        self._shown = False

    def _input(self, data: bytes) -> None:
        for byte in data:
            if byte in (10, 13):
                self._write("\n")
                self._command(bytes(self._line).decode(errors="replace").strip())
                self._line.clear()
                self._write(PROMPT)
            elif byte in (8, 127):
                if self._line:
                    self._line.pop()
                    self._write("\b \b")
            elif byte >= 32:
                self._line.append(byte)
                self._port.write(bytes((byte,)))

    def _write(self, text: str) -> None:
        self._port.write(text.replace("\n", "\r\n").encode())

    def _command(self, line: str) -> None:
        from tcg.cli.main import VERSION
        from tcg.cli.stats import report
        from tcg.cli.x86_dump import dump

        match line.split():
            case []:
                return
            case ["help" | "?"]:
                self._write(HELP)
            case ["quit" | "q"]:
                self._system.quit()
            case ["system_reset"]:
                self._system.board.on_reset("host-qmp-system-reset")
            case ["system_powerdown"]:
                self._system.board.power_button()
            case ["nmi"]:
                self._system.board.nmi()
            case ["info", "registers"]:
                self._write(dump(self._system.engine.vcpu) + "\n")
            case ["info", "jit"]:
                self._write(report(self._system.engine) + "\n")
            case ["info", "version"]:
                self._write(VERSION + "\n")
            case ["info", "status"]:
                self._write("VM status: running\n")
            case _:
                self._write(f"unknown command: '{line}' ('help' lists the commands)\n")
