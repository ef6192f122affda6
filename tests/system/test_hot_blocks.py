"""Hot blocks in a guest: programs print what they print on the host, with and without whole blocks through LLVM."""

from __future__ import annotations

import re
import shutil
import subprocess
import urllib.parse
from pathlib import Path

import pytest

from .harness import GUEST_FILES, TESSERA

TBENCH = Path(__file__).parents[2] / "build" / "tbench"
WORK = "sieve:2500,crc32:30000,queens:900,nbody:300000,strcpy:200000"


def results(output: str) -> list[str]:
    """NAME ITERATIONS CHECKSUM of each program."""
    return re.findall(r"^(\w+ \d+ [0-9a-f]{16}) ", output, re.MULTILINE)


@pytest.mark.parametrize("hot", ["on", "off"])
def test_results_equal_the_hosts(hot: str, tmp_path: Path) -> None:
    image = GUEST_FILES / "initrd-bench.gz"
    if not TBENCH.exists() or not image.exists() or TESSERA.path() is None:
        pytest.skip("the benchmark program or the guest files are not built (make guest)")
    program = shutil.copy(TBENCH, tmp_path / "tbench")
    native = subprocess.run([program, "run", WORK], capture_output=True, text=True, check=True).stdout
    run = urllib.parse.quote(f"tbench run {WORK}")
    command = [
        *(str(TESSERA.path()), "-M", "q35", "-m", "256", "-cpu", "max", "-nodefaults", "-display", "none"),
        *("-kernel", str(GUEST_FILES / "vmlinuz"), "-initrd", str(image), "-no-reboot", "-serial", "stdio"),
        *("-accel", f"tcg,hot-blocks={hot}", "-stats"),
        *("-append", f"console=ttyS0 quiet tessera.quiet panic=-1 tessera.run={run}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300)
    assert done.returncode == 0, done.stderr
    assert results(done.stdout.replace("\r", "")) == results(native)
    installed = re.search(r"hot blocks\s+(\d+) compiled", done.stderr)
    assert installed is not None
    assert (int(installed[1]) > 0) == (hot == "on")
