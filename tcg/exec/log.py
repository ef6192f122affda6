"""`-d`: the translator's log, in QEMU's format, to stderr or the file of `-D`.

Items are QEMU's names. `-dfilter` ranges restrict in_asm, op, op_opt, out_asm, exec and cpu to blocks whose pc is in
one. Writers run on the vCPU's thread (or, for devices, under the machine lock); `write` may be called by any.
"""

import contextlib
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

Line = tuple[int, bytes, str]  # address, bytes, disassembly
BYTES_A_LINE = 8


class Log:
    """items: the enabled names. An unwritable file is an OSError for the caller to name."""

    def __init__(self, items: frozenset[str], file: Path | None = None, ranges: Sequence[tuple[int, int]] = ()) -> None:
        self.items = items
        self.ranges = tuple(ranges)
        self._lock = threading.Lock()
        self._file: TextIO = sys.stderr if file is None else file.open("w", encoding="utf-8", errors="replace")
        self._ended = False

    def wants(self, item: str, pc: int | None = None) -> bool:
        return item in self.items and (pc is None or self.in_range(pc))

    def in_range(self, pc: int) -> bool:
        """Whether -dfilter lets a block at `pc` through."""
        return not self.ranges or any(low <= pc < high for low, high in self.ranges)

    def write(self, text: str) -> None:
        """Append text; a full disk ends the log with one message, never the guest."""
        with self._lock:
            if self._ended:
                return
            try:
                self._file.write(text)
            except OSError as error:
                self._end(error)

    def in_asm(self, lines: Iterable[Line]) -> None:
        """Guest code of one block."""
        self.write("----------------\nIN: \n" + "".join(map(asm_line, lines)) + "\n")

    def ops(self, title: str, parts: Iterable[tuple[int, int, str]]) -> None:
        """IR of one block by guest instruction: its pc, the status flags' id that comes in, the text."""
        body = "\n".join(
            f" ---- {pc:016x} {status:016x}\n" + "".join(f" {line}\n" for line in text.splitlines())
            for pc, status, text in parts
        )
        self.write(f"{title}:\n{body}\n")

    def out_asm(self, size: int, parts: Iterable[tuple[str, Iterable[Line]]]) -> None:
        """Host code of one block: a heading and lines for each part."""
        body = "".join(f"  -- {heading}\n" + "".join(map(asm_line, lines)) for heading, lines in parts)
        self.write(f"OUT: [size={size}]\n{body}\n")

    def trace(self, cpu: int, code: int, cs_base: int, pc: int, mode: int) -> None:
        """`exec`: one block is entered."""
        self.write(f"Trace {cpu}: {code:#x} [{cs_base:016x}/{pc:016x}/{mode:08x}/{0:08x}] \n")

    def flush(self) -> None:
        with self._lock:
            if not self._ended:
                try:
                    self._file.flush()
                except OSError as error:
                    self._end(error)

    def close(self) -> None:
        """Write what is buffered; later text is dropped."""
        self.flush()
        with self._lock:
            self._ended = True
            if self._file is not sys.stderr:
                with contextlib.suppress(OSError):
                    self._file.close()

    def _end(self, error: OSError) -> None:
        self._ended = True
        # Closing tries to write once more what did not fit.
        if self._file is not sys.stderr:
            with contextlib.suppress(OSError):
                self._file.close()
            reason = f"{error.strerror}; the guest goes on, free space or choose another -D file"
            with contextlib.suppress(OSError):
                print(f"tessera: the log ends here: {reason}", file=sys.stderr, flush=True)


def asm_line(line: Line) -> str:
    """Address, bytes and text of one instruction; bytes beyond the eighth go on a line of their own, as in QEMU's."""
    address, code, text = line
    first = f"0x{address:08x}:  {code[:BYTES_A_LINE].hex(' '):<24} {text}\n"
    rest = range(BYTES_A_LINE, len(code), BYTES_A_LINE)
    return first + "".join(f"0x{address + at:08x}:  {code[at : at + BYTES_A_LINE].hex(' ')}\n" for at in rest)
