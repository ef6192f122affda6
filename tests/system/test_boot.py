"""Debian's kernel to a shell, and what a user sees there."""

from __future__ import annotations

import re
import time

import pytest

from .harness import QEMU, Emulator, Guest, linux, run_once

# What a distribution built for x86-64-v2 asks for (x86-64 psABI, 3.1.1), by the kernel's names.
X86_64_V2 = {
    "cx8",
    "cmov",
    "fpu",
    "fxsr",
    "mmx",
    "syscall",
    "sse",
    "sse2",
    "cx16",
    "lahf_lm",
    "popcnt",
    "pni",
    "sse4_1",
    "sse4_2",
    "ssse3",
}


def test_kernel_and_command_line(shell: Guest) -> None:
    assert re.fullmatch(r"Linux \d+\.\d+\.\S+-cloud-amd64 x86_64\n", shell.run("uname -srm"))
    assert "console=ttyS0" in shell.run("cat /proc/cmdline")


def test_cpuinfo(shell: Guest) -> None:
    fields = dict(re.findall(r"^(.*?)\s*: ?(.*)$", shell.run("cat /proc/cpuinfo"), re.MULTILINE))
    assert fields["processor"] == "0"
    assert shell.run("grep -c ^processor /proc/cpuinfo") == "1\n"
    assert fields["vendor_id"] in ("AuthenticAMD", "GenuineIntel")
    assert set(fields["flags"].split()) >= X86_64_V2
    assert float(fields["cpu MHz"]) > 100
    assert float(fields["bogomips"]) > 100


def test_interrupts(shell: Guest) -> None:
    def counts() -> dict[str, int]:
        lines = re.findall(r"^\s*(\w+):\s+(\d+)", shell.run("cat /proc/interrupts"), re.MULTILINE)
        return {name: int(count) for name, count in lines}

    first = counts()
    shell.run("sleep 1")
    second = counts()
    assert second["LOC"] > first["LOC"], "the local APIC's timer interrupts"
    assert second["4"] > first["4"], "the serial port interrupts"
    for name in ("ERR", "MIS", "SPU", "NMI"):
        assert second[name] == 0, name


def test_interrupt_routes_equal_qemus(shell: Guest, guest_files: None) -> None:
    """The lines that QEMU's machine has, by number, controller and trigger, ours has too."""

    def routes(text: str) -> set[tuple[str, str]]:
        return set(re.findall(r"^\s*(\d+):\s+\d+\s+(IO-APIC\s+\S+)", text, re.MULTILINE))

    if QEMU.missing():
        pytest.skip("no qemu-system-x86_64 to compare with")
    assert routes(shell.run("cat /proc/interrupts")) == routes(run_once(QEMU, "cat /proc/interrupts"))


def test_date_is_the_hosts(shell: Guest) -> None:
    assert abs(int(shell.run("date -u +%s")) - time.time()) < 5


def test_clock_runs(shell: Guest) -> None:
    """A second of the guest is a second of the host: seen over some, as the host may be busy at either end."""
    start, guest_start = time.monotonic(), float(shell.run("cut -d' ' -f1 /proc/uptime"))
    shell.run("sleep 4")
    host, guest = time.monotonic() - start, float(shell.run("cut -d' ' -f1 /proc/uptime")) - guest_start
    assert guest == pytest.approx(host, abs=2)


def test_memory(shell: Guest) -> None:
    total_kib = int(shell.run("awk '/MemTotal/ {print $2}' /proc/meminfo"))
    assert 440_000 < total_kib < 512 * 1024


def test_job_control_and_ctrl_c(shell: Guest) -> None:
    shell.console.sendline("sleep 1000")
    time.sleep(0.3)
    shell.console.send("\x03")
    shell.wait_for_shell()
    assert shell.run("echo $?")  # the shell lives


def test_power_off(emulator: Emulator, guest_files: None) -> None:
    """Through process 1, as a user types it."""
    with Guest(emulator, *linux()) as guest:
        guest.wait_for_shell()
        assert guest.end("poweroff") == 0
    assert "Power down" in guest.log


def test_reboot_ends_with_no_reboot(emulator: Emulator, guest_files: None) -> None:
    with Guest(emulator, "-no-reboot", *linux(append="quiet")) as guest:
        guest.wait_for_shell()
        assert guest.end("reboot -f") == 0


def test_run_word(emulator: Emulator, guest_files: None) -> None:
    assert run_once(emulator, r"echo 'a  b' \"100%\" 50% $((6*7)) '\\n'") == 'a  b "100%" 50% 42 \\\\n\n'
