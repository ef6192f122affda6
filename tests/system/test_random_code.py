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
    kernel.write_bytes(pvh_kernel(randomcode.image(seed, starts, compatibility=bool(seed & 1))))
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


@pytest.mark.parametrize("seed", SEEDS)
def test_random_kernel(tmp_path: Path, seed: int) -> None:
    """With all privileges and no handlers: it ends by a triple fault, or runs until it is told to stop."""
    if reason := TESSERA.missing():
        pytest.skip(reason)
    print("seed", seed)
    rng = random.Random(seed)
    kernel = tmp_path / "random.elf"
    kernel.write_bytes(pvh_kernel(rng.randbytes(1 << 16)))
    command = tiny.command(TESSERA, kernel, "-serial", "none")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            _, errors = process.communicate(timeout=2)
        except subprocess.TimeoutExpired:
            process.terminate()
            try:
                _, errors = process.communicate(timeout=60)
            finally:
                process.kill()
    assert process.returncode >= 0 and "Traceback" not in errors, errors
