"""A client of QEMU's qtest protocol: raw port and memory accesses to an installed q35, its clock standing still."""

from __future__ import annotations

import shutil
import subprocess

QEMU = shutil.which("qemu-system-x86_64")
MACHINE = (
    "-M q35 -accel tcg -S -qtest stdio -qtest-log /dev/null -display none -vga none -net none -monitor none -m 16"
    " -serial null"
)
IN = {1: "inb", 2: "inw", 4: "inl"}
OUT = {1: "outb", 2: "outw", 4: "outl"}
READ = {1: "readb", 2: "readw", 4: "readl", 8: "readq"}
WRITE = {1: "writeb", 2: "writew", 4: "writel", 8: "writeq"}


class QTest:
    """One QEMU process. Machine stopped before its first instruction: reset values, virtual time 0."""

    def __init__(self, *arguments: str) -> None:
        assert QEMU is not None
        self._process = subprocess.Popen(
            [QEMU, *MACHINE.split(), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __enter__(self) -> QTest:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.communicate()

    def command(self, text: str) -> str:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()
        while True:
            words = self._process.stdout.readline().split()
            assert words, "qemu-system-x86_64 ended"
            if words[0] == "OK":
                return words[1] if len(words) > 1 else ""
            assert words[0] == "IRQ", words

    def port_read(self, port: int, size: int) -> int:
        return int(self.command(f"{IN[size]} {port:#x}"), 16)

    def port_write(self, port: int, size: int, value: int) -> None:
        self.command(f"{OUT[size]} {port:#x} {value:#x}")

    def memory_read(self, gpa: int, size: int) -> int:
        return int(self.command(f"{READ[size]} {gpa:#x}"), 16)

    def memory_write(self, gpa: int, size: int, value: int) -> None:
        self.command(f"{WRITE[size]} {gpa:#x} {value:#x}")
