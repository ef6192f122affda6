"""`-d`: the translator's log, in QEMU's format, to stderr or the file of `-D`.

Items are QEMU's names. `-dfilter` ranges restrict in_asm, op, op_opt, out_asm and exec to blocks whose pc is inside one.
Writers run under tb_lock or in the vCPU's callback; one line buffer, flushed at exit.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

from tcg.ir.block import Block
from tcg.ir.text import show

Line = tuple[int, bytes, str]  # address, bytes, disassembly


class Log:
    """items: the enabled names. An unwritable file is an OSError for the caller to name."""

    def __init__(self, items: frozenset[str], file: Path | None = None, ranges: Sequence[tuple[int, int]] = ()) -> None:
        self.items = items
        self.ranges = tuple(ranges)
        self._file: TextIO = sys.stderr if file is None else file.open("w", encoding="utf-8")
        self._failed = False

    def wants(self, item: str, pc: int | None = None) -> bool:
        if item not in self.items:
            return False
        return pc is None or not self.ranges or any(low <= pc < high for low, high in self.ranges)

    def write(self, text: str) -> None:
        """Append text; a full disk ends the log with one message, never the guest."""
        if self._failed:
            return
        try:
            self._file.write(text)
        except OSError as error:
            self._failed = True
            print(
                f"tessera: the log ends here: {error.strerror}; free space or choose another -D file", file=sys.stderr
            )

    def in_asm(self, lines: Iterable[Line]) -> None:
        """Guest code of one block."""
        self.write("----------------\nIN: \n" + "".join(_asm(line) for line in lines) + "\n")

    def ops(self, title: str, parts: Iterable[tuple[int, Block]]) -> None:
        """IR of one block, by guest instruction (`OP:`, `OP after optimization and liveness analysis:`)."""
        body = "".join(
            f" ---- {pc:016x}\n" + "".join(f" {line}\n" for line in show(block).splitlines()) for pc, block in parts
        )
        self.write(f"{title}:\n{body}\n")

    def out_asm(self, size: int, parts: Iterable[tuple[int | None, Iterable[Line]]]) -> None:
        """Host code of one block, by guest instruction (None: prologue, exits, out-of-line code)."""
        text = f"OUT: [size={size}]\n"
        for pc, lines in parts:
            text += f"  -- guest addr 0x{pc:016x}\n" if pc is not None else "  -- tb slow paths + alignment\n"
            text += "".join(_asm(line) for line in lines)
        self.write(text + "\n")

    def trace(self, cpu: int, code: int, pc: int, mode: int) -> None:
        """`exec`: one block is entered."""
        self.write(f"Trace {cpu}: 0x{code:012x} [{0:016x}/{pc:016x}/{mode:08x}/{0:08x}] \n")

    def close(self) -> None:
        try:
            self._file.flush()
            if self._file is not sys.stderr:
                self._file.close()
        except OSError as error:
            print(f"tessera: the log could not be written: {error.strerror}", file=sys.stderr)


def _asm(line: Line) -> str:
    address, code, text = line
    return f"0x{address:08x}:  {code.hex(' '):<24} {text}\n"
