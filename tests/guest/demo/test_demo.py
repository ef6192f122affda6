"""The demo guest: assembled the same each time, and right about the machine that QEMU is."""

import hashlib
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest

from hw.firmware.demo import BANNER, EXIT_OK, SUCCESS, elf_image, image
from hw.firmware.demo.demo import END_GPA, LOAD_GPA, source

QEMU = shutil.which("qemu-system-x86_64")
needs_qemu = pytest.mark.skipif(QEMU is None, reason="qemu-system-x86_64 is not installed")
CHECKS = ("arithmetic", "flags", "strings", "floating point", "atomics", "exceptions", "page faults", "segments",
          "ring 3", "self-modifying code", "timers")  # fmt: skip


def qemu(kernel: Path, *options: str, stdin: str = "") -> tuple[int, str]:
    """Run to the end. With `stdin`, each line is sent once a prompt has come."""
    command = [str(QEMU), "-M", "q35", "-m", "16", "-kernel", str(kernel), "-display", "none", "-nodefaults"]
    command += ["-serial", "stdio", "-no-reboot", *options]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    assert process.stdin is not None and process.stdout is not None
    deadline = time.monotonic() + 60
    output, lines = "", stdin.splitlines()
    try:
        while time.monotonic() < deadline:
            character = process.stdout.read(1)
            if not character:
                break
            output += character
            if lines and output.endswith("demo> "):
                process.stdin.write(lines.pop(0) + "\n")
                process.stdin.flush()
        return process.wait(10), output
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    path = tmp_path / "demo"
    path.write_bytes(image())
    return path


def test_assembled_deterministically() -> None:
    first = image()
    image.cache_clear()
    assert hashlib.sha256(image()).digest() == hashlib.sha256(first).digest()


def test_image_is_a_multiboot_kernel_with_its_own_addresses() -> None:
    magic, flags, checksum, header, load, load_end, bss_end, entry = struct.unpack_from("<8I", image())
    assert magic == 0x1BADB002 and flags & 0x10000 and (magic + flags + checksum) & 0xFFFFFFFF == 0
    assert header == load == LOAD_GPA and load_end == LOAD_GPA + len(image())
    assert load_end <= bss_end < END_GPA
    assert LOAD_GPA < entry < load_end


def test_source_has_no_reference_that_keystone_gets_wrong() -> None:
    """keystone encodes [rip + constant] as that displacement, not relative: only labels may stand there."""
    constants = [line.split()[1].rstrip(",") for line in source().splitlines() if line.startswith(".set ")]
    plain = {name for name in constants if f".set {name}, 0x" in source()}
    for line in source().splitlines():
        if "[rip+" in line:
            assert line.split("[rip+")[1].split("]")[0].split("+")[0] not in plain, line


@needs_qemu
def test_checks_pass_under_qemu(kernel: Path) -> None:
    status, output = qemu(kernel, "-append", "exit", "-device", "isa-debug-exit,iobase=0xf4")
    assert BANNER in output
    assert [line.strip() for line in output.splitlines() if line.startswith("  ")] == [f"{name}: ok" for name in CHECKS]
    assert SUCCESS in output
    assert status == EXIT_OK << 1 | 1


@needs_qemu
def test_pvh_image_under_qemu(tmp_path: Path) -> None:
    (tmp_path / "demo.elf").write_bytes(elf_image())
    status, output = qemu(tmp_path / "demo.elf", "-append", "exit", "-device", "isa-debug-exit,iobase=0xf4")
    assert SUCCESS in output and status == EXIT_OK << 1 | 1


@needs_qemu
def test_a_failing_check_is_reported(tmp_path: Path) -> None:
    """Spoil one expected value in the image: the guest must notice and say where."""
    value = struct.pack("<Q", 0x3FD8000000000000)  # 3 / 8 as a double
    assert image().count(value) == 1
    (tmp_path / "demo").write_bytes(image().replace(value, struct.pack("<Q", 0x3FD8000000000001)))
    status, output = qemu(tmp_path / "demo", "-append", "exit", "-device", "isa-debug-exit,iobase=0xf4")
    assert "floating point: FAILED at step 2" in output and "self-check: FAILED" in output
    assert status == 0x11 << 1 | 1


@needs_qemu
def test_prompt_and_power_off(kernel: Path) -> None:
    status, output = qemu(kernel, stdin="help\nticks\nnonsense\ncheck\npoweroff\n")
    assert "help ticks check exit poweroff reboot crash halt" in output
    ticks = output.split("demo> ticks")[1].split()[0]
    assert int(ticks) > 0
    assert "nonsense: not a command; try help" in output
    assert output.count(SUCCESS) == 2
    assert status == 0


@needs_qemu
@pytest.mark.parametrize("command", ["reboot", "crash"])
def test_reset_ends_a_machine_that_does_not_reboot(kernel: Path, command: str) -> None:
    status, output = qemu(kernel, stdin=command + "\n")
    assert output.rstrip().endswith(command)
    assert status == 0


@needs_qemu
def test_without_debug_exit_it_powers_off(kernel: Path) -> None:
    assert qemu(kernel, "-append", "exit")[0] == 0
