"""The kernel complains of nothing under ours that it does not complain of under QEMU with the same devices."""

from __future__ import annotations

import re

import pytest

from .harness import QEMU, TESSERA, run_once

WARNING = 4


def complaints(raw: str) -> set[str]:
    """Lines of level warning or worse from ``dmesg -r``, without times, addresses and measured numbers."""
    found = set()
    for level, text in re.findall(r"^<(\d+)>(.*)$", raw, re.MULTILINE):
        if int(level) & 7 <= WARNING:
            text = re.sub(r"^\[\s*\d+\.\d+\]\s*", "", text)
            text = re.sub(r"0x[0-9a-f]+|\b[0-9a-f]{8,16}\b", "H", text)
            found.add(re.sub(r"\d+", "N", text).strip())
    return found


def test_complaints_are_found() -> None:
    raw = "<6>[    0.0] fine\n<4>[    0.1] ACPI: bad 0x12 at line 7\n<12>[    0.2] user: warn\n<3>[ 1.0] error\n"
    assert complaints(raw) == {"ACPI: bad H at line N", "user: warn", "error"}


def test_no_complaint_that_qemu_lacks(guest_files: None) -> None:
    for emulator in (QEMU, TESSERA):
        if reason := emulator.missing():
            pytest.skip(reason)
    known = complaints(run_once(QEMU, "dmesg -r"))
    # What the kernel's timer calibrations complain of comes and goes with the host's load, under both: ours has a
    # complaint of its own if each of three boots has it.
    ours = complaints(run_once(TESSERA, "dmesg -r"))
    for _ in range(2):
        if ours - known:
            ours &= complaints(run_once(TESSERA, "dmesg -r"))
    assert ours - known == set()
