"""The caches on disk as a user meets them: made by the first run, used by the second, damaged, full, read-only."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import frontends.x86.recipe as x86
from tcg.runtime.object import cache_directory, load, source_key
from tcg.runtime.registry import RUNTIMES

from .harness import TESSERA

DEMO = ("-M", "q35", "-m", "64", "-nodefaults", "-display", "none", "-serial", "stdio", "-append", "exit")
EXIT = ("-device", "isa-debug-exit,iobase=0xf4,iosize=4")
EXIT_GOOD = 0x10 << 1 | 1


def run(cache: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The demo guest's self-check with its caches under `cache`; it must succeed whatever is wrong there."""
    path = TESSERA.path()
    assert path is not None
    done = subprocess.run(
        [path, "-demo", *DEMO, *EXIT, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"XDG_CACHE_HOME": str(cache)} | environment,
    )
    assert done.returncode == EXIT_GOOD, (done.returncode, done.stdout, done.stderr)
    assert "self-check: OK" in done.stdout
    assert "Traceback" not in done.stderr
    return done


def tessera(cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = TESSERA.path()
    assert path is not None
    command = [str(Path(path).with_name("tessera")), *arguments]
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)


def missed(stderr: str) -> tuple[int, int]:
    """Encodings and stencils that the caches did not have, out of the statistics."""
    found = re.search(r"^not in the caches +(\d+) look-ups of encodings, (\d+) of stencils$", stderr, re.M)
    assert found is not None, stderr
    return int(found[1]), int(found[2])


@pytest.fixture(scope="module")
def runtime_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache directory with the run-time object and nothing else: that takes a minute to build."""
    if reason := TESSERA.missing():
        pytest.skip(reason)
    load(x86.RUNTIME)
    made = tmp_path_factory.mktemp("runtime")
    (made / "tessera").mkdir()
    name = f"runtime-{x86.RUNTIME}-{source_key(RUNTIMES[x86.RUNTIME])}.o"
    shutil.copy(cache_directory() / name, made / "tessera" / name)
    return made


@pytest.fixture(scope="module")
def warm(runtime_only: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after `tessera cache warm`."""
    made = tmp_path_factory.mktemp("warm")
    shutil.copytree(runtime_only / "tessera", made / "tessera")
    done = tessera(made, "cache", "warm")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"^  (?:runtime|tables)-.*valid, current$", done.stdout, re.M)) == 2
    return made


@pytest.fixture
def cache(warm: Path, tmp_path: Path) -> Path:
    """A warm cache of the test's own."""
    shutil.copytree(warm / "tessera", tmp_path / "tessera")
    return tmp_path


def tables(cache: Path) -> Path:
    (path,) = (cache / "tessera").glob("tables-*")
    return path


def test_warm_caches_lack_nothing(cache: Path) -> None:
    before = tables(cache).stat().st_mtime_ns
    assert missed(run(cache, "-stats").stderr) == (0, 0)
    assert tables(cache).stat().st_mtime_ns == before, "nothing new, so nothing is written"


def test_first_run_fills_them(runtime_only: Path, tmp_path: Path) -> None:
    shutil.copytree(runtime_only / "tessera", tmp_path / "tessera")
    done = run(tmp_path, "-stats", TESSERA_PROGRESS="1")
    encodings, _ = missed(done.stderr)
    assert encodings > 50
    assert re.search(r"^tessera: translating .*: \d+ patterns, \d+ stencils$", done.stderr, re.M)
    times = dict(re.findall(r"^  ([a-z]+) +(\d+\.\d{3})", done.stderr, re.M))
    stages = ("decode", "ir", "optimize", "llvm", "assemble", "install", "run", "devices", "halted")
    assert set(stages) <= times.keys()
    assert float(times["decode"]) > 0 and float(times["run"]) > 0
    assert missed(run(tmp_path, "-stats").stderr) == (0, 0)


@pytest.mark.parametrize("damage", ["flip", "cut", "directory"])
def test_damaged_tables_are_replaced(cache: Path, damage: str) -> None:
    path = tables(cache)
    data = bytearray(path.read_bytes())
    match damage:
        case "flip":
            data[len(data) // 2] ^= 4
        case "cut":
            del data[len(data) // 2 :]
    path.unlink()
    if damage == "directory":
        path.mkdir()
    else:
        path.write_bytes(data)
    assert missed(run(cache, "-stats").stderr)[0] > 50
    if damage != "directory":
        assert missed(run(cache, "-stats").stderr) == (0, 0)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_no_place_for_caches(runtime_only: Path, tmp_path: Path) -> None:
    """The directory cannot be written: nothing is kept, everything works."""
    made = tmp_path / "tessera"
    made.mkdir()
    for path in (runtime_only / "tessera").iterdir():
        (made / path.name).symlink_to(path)
    made.chmod(0o500)
    try:
        run(tmp_path)
    finally:
        made.chmod(0o700)


def test_clear_then_info(cache: Path) -> None:
    (cache / "tessera" / "mine.txt").write_text("not yours")
    done = tessera(cache, "cache", "clear")
    assert done.returncode == 0 and re.match(r"[23] files, ", done.stdout)
    assert [path.name for path in (cache / "tessera").iterdir()] == ["mine.txt"]
    assert "mine.txt" in tessera(cache, "cache", "info").stdout


def test_warm_says_why_it_cannot(runtime_only: Path, tmp_path: Path) -> None:
    shutil.copytree(runtime_only / "tessera", tmp_path / "tessera")
    done = tessera(tmp_path, "cache", "warm", "--kernel", str(tmp_path / "absent"))
    assert done.returncode == 1
    assert "absent" in done.stderr and "Traceback" not in done.stderr
