"""Command lines that cannot work: one clear line that names what is wrong, status 1, nothing lost."""

from __future__ import annotations

import gzip
import os
import subprocess
from pathlib import Path

import pytest

from . import tiny
from .harness import TESSERA


def refused(*arguments: str, environment: dict[str, str] | None = None) -> str:
    """Run ours; it must end with status 1. Returns what it said on standard error."""
    if reason := TESSERA.missing():
        pytest.skip(reason)
    path = TESSERA.path()
    assert path is not None
    done = subprocess.run(
        [path, "-M", "q35", "-display", "none", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | (environment or {}),
    )
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    return tiny.assemble("hlt", tmp_path)


def test_no_kernel_file(tmp_path: Path) -> None:
    assert "absent" in refused("-kernel", str(tmp_path / "absent"))


def test_empty_kernel(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert "empty" in refused("-kernel", str(tmp_path / "empty"))


def test_no_kernel_at_all(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(b"no kernel at all, but long enough to be looked at" * 100)
    assert "noise" in refused("-kernel", str(tmp_path / "noise"))


def test_truncated_kernel(tmp_path: Path, kernel: Path) -> None:
    (tmp_path / "half").write_bytes(kernel.read_bytes()[:100])
    assert "half" in refused("-kernel", str(tmp_path / "half"))


def test_kernel_for_another_architecture(tmp_path: Path, kernel: Path) -> None:
    aarch64 = bytearray(kernel.read_bytes())
    aarch64[18:20] = (183).to_bytes(2, "little")  # e_machine: EM_AARCH64
    (tmp_path / "arm").write_bytes(aarch64)
    assert "arm" in refused("-kernel", str(tmp_path / "arm"))


def test_kernel_is_a_directory(tmp_path: Path) -> None:
    assert str(tmp_path) in refused("-kernel", str(tmp_path))


def test_no_initrd_file(tmp_path: Path, kernel: Path) -> None:
    assert "absent" in refused("-kernel", str(kernel), "-initrd", str(tmp_path / "absent"))


def test_initrd_larger_than_ram(tmp_path: Path, kernel: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(64 << 20)
    assert "big" in refused("-m", "32", "-kernel", str(kernel), "-initrd", str(big))


def test_initrd_as_kernel(tmp_path: Path) -> None:
    (tmp_path / "initrd").write_bytes(gzip.compress(b"070701" * 1000))
    assert "initrd" in refused("-kernel", str(tmp_path / "initrd"))


@pytest.mark.parametrize("size", ["0", "-5", "x", "", "999999999G"])
def test_impossible_memory(kernel: Path, size: str) -> None:
    assert "-m" in refused("-m", size, "-kernel", str(kernel))


@pytest.mark.parametrize(
    ("option", "nearest"),
    [
        ("-kernal", "-kernel"),
        ("-intrd", "-initrd"),
        ("-apend", "-append"),
        ("-nographics", "-nographic"),
        ("-smpp", "-smp"),
    ],
)
def test_unknown_option_is_named_with_the_nearest(option: str, nearest: str) -> None:
    message = refused(option, "x")
    assert option in message and f"'{nearest}'" in message


def test_several_cpus_are_refused(kernel: Path) -> None:
    assert "-smp" in refused("-smp", "2", "-kernel", str(kernel))


def test_option_without_its_argument() -> None:
    assert "-kernel" in refused("-kernel")


def test_nothing_to_boot() -> None:
    assert "-kernel" in refused()


def test_log_file_that_cannot_be_written(tmp_path: Path, kernel: Path) -> None:
    where = str(tmp_path / "no" / "such" / "log")
    assert where in refused("-kernel", str(kernel), "-d", "in_asm", "-D", where)


@pytest.mark.parametrize("date", ["2006-13-45", "2006", "2006-06-17T25:00:00", "0000-00-00"])
def test_no_such_date(kernel: Path, date: str) -> None:
    assert date in refused("-rtc", f"base={date}", "-kernel", str(kernel))
