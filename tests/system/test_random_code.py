"""Random bytes as guest code, as user code of a kernel that survives it and as the kernel itself: no crash, no hang."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from benchmarks.first_instruction import pvh_kernel

from . import randomcode, tiny
from .harness import TESSERA, Emulator

STARTS, STARTS_SOAK = 100, 5000  # of some ten instructions each
SEEDS = range(20)
LONGEST_S = 300


def run_users(emulator: Emulator, directory: Path, seed: int, starts: int) -> None:
    """Odd seeds run in compatibility mode."""
    print("seed", seed)
    kernel = directory / "random.elf"
    segment = randomcode.USER32_CS if seed & 1 else randomcode.USER64_CS
    kernel.write_bytes(pvh_kernel(randomcode.image(seed, starts, code=segment)))
    status, output = tiny.run(emulator, kernel, timeout=LONGEST_S)
    assert "internal error" not in output and "Traceback" not in output, output
    assert status == tiny.exit_status(randomcode.PASS), output


@pytest.mark.parametrize("seed", [0, 1])
def test_the_guest_itself(emulator: Emulator, tmp_path: Path, seed: int) -> None:
    """Under QEMU too: what the guest says is not ours alone."""
    run_users(emulator, tmp_path, seed, 50)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_user_code(tmp_path: Path, seed: int) -> None:
    if reason := TESSERA.missing():
        pytest.skip(reason)
    run_users(TESSERA, tmp_path, seed, STARTS)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 120))
def test_much_random_user_code(tmp_path: Path, seed: int) -> None:
    run_users(TESSERA, tmp_path, seed, STARTS_SOAK)


def run_kernel(directory: Path, image: bytes, seconds: float) -> None:
    """It ends by a triple fault or as the bytes will have it, or runs until it is told to stop."""
    if reason := TESSERA.missing():
        pytest.skip(reason)
    kernel = directory / "random.elf"
    kernel.write_bytes(pvh_kernel(image))
    command = tiny.command(TESSERA, kernel, "-serial", "null")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            _, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
            try:
                _, errors = process.communicate(timeout=60)
            finally:
                process.kill()
    assert process.returncode >= 0, (process.returncode, errors)
    assert "Traceback" not in errors and "internal error" not in errors, errors


@pytest.mark.parametrize("seed", range(10))
def test_random_kernel(tmp_path: Path, seed: int) -> None:
    """With all privileges and no handlers."""
    print("seed", seed)
    run_kernel(tmp_path, random.Random(seed).randbytes(1 << 16), 3)


@pytest.mark.parametrize("seed", range(10))
def test_random_privileged_code(tmp_path: Path, seed: int) -> None:
    """With all privileges and, until it destroys them, handlers that start it again elsewhere."""
    print("seed", seed)
    run_kernel(tmp_path, randomcode.image(seed, STARTS, code=randomcode.KERNEL_CS), 3)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 160))
def test_much_random_privileged_code(tmp_path: Path, seed: int) -> None:
    print("seed", seed)
    run_kernel(tmp_path, randomcode.image(seed, STARTS_SOAK, code=randomcode.KERNEL_CS), 20)
