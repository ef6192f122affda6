"""The long run's own machinery, in processes of its own: it installs signal handlers of machine code."""

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

if platform.machine() != "x86_64":
    pytest.skip("the host CPU is a judge", allow_module_level=True)

_TESTS = Path(__file__).parents[2]
_LIE = """
import sys
from fuzz.x86 import batch, campaign
from fuzz.x86.native_host import NativeHost
run = NativeHost.run
def lie(self, code, pc, code64, words, fx, memories, memory, *, branches):
    run(self, code, pc, code64, words, fx, memories, memory, branches=branches)
    {lie}
NativeHost.run = lie
sys.exit(campaign.main())
"""


def _run(tmp_path: Path, *arguments: str, lie: str = "pass") -> tuple[int, list[dict[str, Any]]]:
    command = [sys.executable, "-c", _LIE.format(lie=lie), *arguments, "--out", str(tmp_path)]
    environment = {"PYTHONPATH": f"{_TESTS}:{_TESTS.parent}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=environment, cwd=_TESTS.parent, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    lines = (tmp_path / "results-1.jsonl").read_text().splitlines()
    return done.returncode, [json.loads(line) for line in lines]


def test_judges_faults_branches_and_both_code_sizes(tmp_path: Path) -> None:
    for chapter, only in (("divide", "idiv {r32}"), ("control", "jmp {r"), ("stack", "pop {m16}")):
        status, counts = _run(tmp_path, "--states", "40", "--encodings", "4", "--chapters", chapter, "--only", only)
        assert status == 0
    assert {c["bits"] for c in counts} == {32, 64}
    assert all(c["host"] == c["states"] >= 40 and c["interpreter"] and not c["mismatches"] for c in counts)
    assert sum(c["faults"] for c in counts if c["chapter"] == "divide") > 0


@pytest.mark.parametrize(
    "lie",
    ["words[7, 3] ^= 1", "words[7, 16] ^= 0x40", "words[7, 17] = 14", "memory[7, 9] ^= 1"],
    ids=["register", "flag", "fault", "memory"],
)
def test_a_difference_is_found(tmp_path: Path, lie: str) -> None:
    options = (
        "--states",
        "10",
        "--encodings",
        "1",
        "--chapters",
        "arith",
        "--only",
        "sub {m32},{r32}",
        "--sample",
        "1",
    )
    status, counts = _run(tmp_path, *options, lie=lie)
    assert status == 1 and [c["mismatches"] for c in counts] == [1, 1]
