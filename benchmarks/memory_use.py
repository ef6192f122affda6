"""Resident memory of an emulator above its guest's RAM, from ``/proc/PID/smaps`` (proc(5))."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

from benchmarks.machines import RAM_MIB, Emulator, running

_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) ")


def above_guest_ram(smaps: str, ram_bytes: int) -> int:
    """Proportional set size in bytes of all mappings but those as large as guest RAM.

    Proportional: a page of ours that is mapped twice (code: once writable, once executable) counts once.
    """
    total = 0
    is_ram = False
    for line in smaps.splitlines():
        if match := _MAPPING.match(line):
            is_ram = int(match[2], 16) - int(match[1], 16) >= ram_bytes
        elif line.startswith("Pss:") and not is_ram:
            total += int(line.split()[1]) * 1024
    return total


def peak(emulator: Emulator, arguments: list[str], timeout: float) -> int | None:
    """The largest value seen, in bytes, of ten samples a second while the guest runs to its end; None when none was."""
    largest = 0
    end = time.monotonic() + timeout
    with running(emulator, *arguments) as process:
        while time.monotonic() < end:
            try:
                smaps = Path(f"/proc/{process.pid}/smaps").read_text()
            except OSError:
                break
            # Before guest RAM is mapped, and in a process that is ending, the value means nothing.
            largest = max(largest, above_guest_ram(smaps, RAM_MIB << 20))
            try:
                process.communicate(timeout=0.1)
                break
            except subprocess.TimeoutExpired:
                continue
    return largest or None
