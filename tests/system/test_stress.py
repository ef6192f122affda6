"""Checked busybox load: once in the suite, for a minute as a soak test; and twenty boots of twenty."""

from __future__ import annotations

import time

import pytest

from .harness import Emulator, Guest, linux, run_once
from .stress import CHECKS

SOAK_SECONDS = 60
SOAK_BOOTS = 20


@pytest.mark.parametrize(("command", "expected"), [pytest.param(*check[1:], id=check[0]) for check in CHECKS])
def test_program(shell: Guest, command: str, expected: str) -> None:
    # Each stands for itself: the input is made anew.
    shell.run(f"cd /tmp; {CHECKS[0][1]} >/dev/null; cd /")
    assert shell.run(f"(cd /tmp; {command})") == expected


@pytest.mark.soak
def test_a_minute_of_stress(emulator: Emulator, guest_files: None) -> None:
    with Guest(emulator, *linux(append="quiet")) as guest:
        guest.wait_for_shell()
        end = time.monotonic() + SOAK_SECONDS
        rounds = 0
        while time.monotonic() < end:
            for name, command, expected in CHECKS:
                assert guest.run(f"(cd /tmp; {command})") == expected, (name, rounds)
            rounds += 1
        assert guest.run("dmesg -r | grep -c '^<[0-3]>'", status=1) == "0\n"
        assert guest.end() == 0


@pytest.mark.soak
@pytest.mark.parametrize("number", range(SOAK_BOOTS))
def test_boots(emulator: Emulator, guest_files: None, number: int) -> None:
    assert run_once(emulator, "echo up") == "up\n"
