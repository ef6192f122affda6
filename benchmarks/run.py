"""``python -m benchmarks.run``: the host, qemu-system-x86_64 and ours in turn, one table, ``build/bench.json``.

Each of N rounds runs every machine once on every group, so that a slow minute of the host touches all alike; the table
shows medians. Nothing is asserted: a wrong checksum or a run that failed is shown as such.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

if not __package__:  # run as a file, not with -m: by `tessera bench`
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import first_instruction, machines, memory_use
from benchmarks.machines import Emulator
from benchmarks.report import Row, save, table

ROOT = Path(__file__).parent.parent
PROGRAM_GROUPS = ("integer", "string", "float", "system", "translation")
GROUPS = ("boot", "start", "memory", *PROGRAM_GROUPS)

# After so many programs that brought the guest down, the rest of their group is not tried.
GIVE_UP = 3

# What a guest does while its emulator's memory is watched: code of each kind, some processes.
_MEMORY_LOAD = "tbench run coremark:3000,nbody:50000,memcpy:3000,fork_exec:100,never_seen_blocks:20000"

_CONTROL_SEQUENCE = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[A-Za-z])")
_RESULT = re.compile(r"\b([a-z_0-9]+) (\d+) ([0-9a-f]{16}) (\d+\.\d+)$", re.MULTILINE)


@dataclass(slots=True)
class Session:
    """One invocation: what to compare and what came out."""

    guest: Path
    program: Path
    timeout: float
    emulators: list[Emulator]
    directory: Path  # for temporary files
    rows: dict[tuple[str, str], Row] = field(default_factory=dict)

    def row(self, group: str, name: str, unit: str = "s") -> Row:
        """The row of that name, made when new."""
        return self.rows.setdefault((group, name), Row(group, name, unit))


def parse_results(output: str) -> dict[str, tuple[str, float]]:
    """Benchmark name to (checksum, seconds), from the program's own lines amid whatever else a console shows."""
    plain = _CONTROL_SEQUENCE.sub("", output)
    return {match[1]: (f"{match[2]} {match[3]}", float(match[4])) for match in _RESULT.finditer(plain)}


def listing(program: Path) -> list[tuple[str, str, int]]:
    """Group, name and default iterations of each benchmark, as the program lists them."""
    text = subprocess.run([str(program), "list"], capture_output=True, text=True, check=True).stdout
    return [(group, name, int(count)) for group, name, count in (line.split() for line in text.splitlines())]


def program_names(program: Path) -> dict[str, list[str]]:
    """Group to the benchmarks that the program lists."""
    groups: dict[str, list[str]] = {}
    for group, name, _ in listing(program):
        groups.setdefault(group, []).append(name)
    return groups


def warm_up(session: Session, names: Sequence[str]) -> None:
    """One untimed boot and a short run of each program under ours: from then on its caches on disk are warm."""
    # The translation group needs all of its code; of the others a hundredth shows every instruction.
    shares = {
        name: count if group == "translation" else max(1, count // 100)
        for group, name, count in listing(session.program)
    }
    command = "tbench run " + ",".join(f"{name}:{shares[name]}" for name in names) if names else "true"
    for emulator in session.emulators:
        if emulator.label == "tessera":
            machines.run(emulator, *machines.linux(session.guest, "initrd-bench.gz", command), timeout=session.timeout)


def run_programs(emulator: Emulator, session: Session, names: Sequence[str]) -> dict[str, tuple[str, float]]:
    """Run benchmarks in a guest; when one brings the guest down, go on behind it in a new one."""
    results: dict[str, tuple[str, float]] = {}
    remaining = list(names)
    lost = 0
    while remaining and lost < GIVE_UP:
        command = machines.linux(session.guest, "initrd-bench.gz", f"tbench run {','.join(remaining)}")
        outcome = machines.run(emulator, *command, timeout=session.timeout)
        results |= parse_results(outcome.output)
        missing = [name for name in remaining if name not in results]
        if missing:
            lost += 1
            print(f"{emulator.label}: {missing[0]} gave no result; the last lines:", file=sys.stderr)
            print("  " + "\n  ".join(outcome.output.splitlines()[-5:]), file=sys.stderr)
        remaining = remaining[remaining.index(missing[0]) + 1 :] if missing else []
    return results


def measure_programs(session: Session, group: str, names: Sequence[str]) -> None:
    """One round of a group of programs."""
    native = parse_results(machines.run_native(session.program, names))
    for name, (_, seconds) in native.items():
        session.row(group, name).add("native", seconds)
    for emulator in session.emulators:
        results = run_programs(emulator, session, names)
        for name in names:
            row = session.row(group, name)
            if name not in results:
                row.failed.add(emulator.label)
                continue
            checksum, seconds = results[name]
            row.add(emulator.label, seconds)
            if name in native and checksum != native[name][0]:
                row.wrong.add(emulator.label)


def measure_boot(session: Session) -> None:
    """Kernel and busybox to power-off, the process's whole life: caches warm, and none but the native run-time."""
    command = machines.linux(session.guest, "initrd.gz", "true")
    for emulator in session.emulators:
        note_boot(session, emulator, "boot to power-off, warm", command)
    for emulator in session.emulators:
        with tempfile.TemporaryDirectory(dir=session.directory) as cache:
            cold = without_caches(emulator, Path(cache))
            note_boot(session, cold, "boot to power-off, no caches", command)


def note_boot(session: Session, emulator: Emulator, name: str, command: Sequence[str]) -> None:
    """One boot, timed."""
    outcome = machines.run(emulator, *command, timeout=session.timeout)
    row = session.row("boot", name)
    if outcome.ended_well and "tessera.run: status 0" in outcome.output:
        row.add(emulator.label, outcome.seconds)
    else:
        row.failed.add(emulator.label)
        print(f"{emulator.label}: {name} failed, status {outcome.status}; the last lines:", file=sys.stderr)
        print("  " + "\n  ".join(outcome.output.splitlines()[-5:]), file=sys.stderr)


def without_caches(emulator: Emulator, directory: Path) -> Emulator:
    """The emulator as on its first day: a cache directory of its own that holds nothing but the native run-time."""
    if emulator.label != "tessera":
        return emulator
    source = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tessera"
    (directory / "tessera").mkdir()
    for native in source.glob("runtime-*.o"):
        shutil.copy2(native, directory / "tessera")
    return machines.ours(emulator.command, {"XDG_CACHE_HOME": str(directory)})


def measure_start(session: Session) -> None:
    """Process start to first guest instruction."""
    row = session.row("start", "process start to first guest instruction")
    for emulator in session.emulators:
        seconds = first_instruction.measure(emulator, session.directory)
        if seconds is None:
            row.failed.add(emulator.label)
        else:
            row.add(emulator.label, seconds)


def measure_memory(session: Session) -> None:
    """Resident memory above guest RAM, at its peak."""
    row = session.row("memory", "resident above guest RAM, peak", "bytes")
    command = machines.linux(session.guest, "initrd-bench.gz", _MEMORY_LOAD)
    for emulator in session.emulators:
        size = memory_use.peak(emulator, command, session.timeout)
        if size is None:
            row.failed.add(emulator.label)
        else:
            row.add(emulator.label, size)


def host_about() -> dict[str, str]:
    """The machine and the revision, for the head of the table and the JSON file."""
    about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "system": platform.platform()}
    try:
        listing = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout
        fields = dict(line.split(":", 1) for line in listing.splitlines() if ":" in line)
        about["cpu"] = fields.get("Model name", "?").strip()
        about["cpus"] = fields.get("CPU(s)", "?").strip()
        about["hypervisor"] = fields.get("Hypervisor vendor", "none").strip()
    except (OSError, subprocess.CalledProcessError):
        about["cpu"] = platform.processor()
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    about["revision"] = revision.stdout.strip()
    return about


def version(emulator: Emulator) -> str:
    """The first line that the emulator says of itself."""
    done = subprocess.run(
        [emulator.found() or emulator.command, "-version"], capture_output=True, text=True, check=False
    )
    return (done.stdout or done.stderr).strip().split("\n")[0]


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--only", action="append", metavar="GROUP[,GROUP]", help=f"of {', '.join(GROUPS)}, or a program's name"
    )
    parser.add_argument("--runs", type=int, default=3, help="alternating rounds (default: 3)")
    parser.add_argument("--peer", default="qemu-system-x86_64", help="command of the peer, or none")
    parser.add_argument("--ours", default="tessera-system-x86_64", help="our command, or none")
    parser.add_argument("--guest", type=Path, default=ROOT / "guest", help="directory of the guest files")
    parser.add_argument(
        "--program", type=Path, default=ROOT / "build" / "tbench", help="the benchmark program, for the host"
    )
    parser.add_argument("--timeout", type=float, default=180.0, help="seconds for one guest (default: 180)")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "bench.json", help="file of all runs")
    return parser.parse_args(arguments)


def choose(only: Sequence[str] | None, programs: dict[str, list[str]]) -> dict[str, list[str]]:
    """Groups to run, each with its benchmarks, from the words of --only."""
    everything = {group: programs.get(group, []) for group in GROUPS}
    if not only:
        return everything
    words = [word for words in only for word in words.split(",")]
    known = {*GROUPS, *(name for names in programs.values() for name in names)}
    if unknown := [word for word in words if word not in known]:
        raise SystemExit(f"no such group or program: {', '.join(unknown)}")
    chosen: dict[str, list[str]] = {}
    for group, names in everything.items():
        picked = [name for name in names if group in words or name in words]
        if picked or group in words:
            chosen[group] = picked
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, save."""
    options = parse_arguments(arguments)
    for path in (options.program, options.guest / "vmlinuz", options.guest / "initrd-bench.gz"):
        if not path.is_file():
            print(f"{path} is missing: `make guest` makes it", file=sys.stderr)
            return 1
    emulators = []
    if options.peer != "none":
        emulators.append(machines.peer(options.peer))
    if options.ours != "none":
        emulators.append(machines.ours(options.ours))
    for emulator in [e for e in emulators if e.found() is None]:
        print(f"{emulator.command} is not installed: left out", file=sys.stderr)
        emulators.remove(emulator)
    chosen = choose(options.only, program_names(options.program))
    about = host_about() | {emulator.label: version(emulator) for emulator in emulators}
    for key, value in about.items():
        print(f"{key}: {value}")
    single: dict[str, Callable[[Session], None]] = {
        "boot": measure_boot,
        "start": measure_start,
        "memory": measure_memory,
    }
    with tempfile.TemporaryDirectory(prefix="tessera-bench-") as directory:
        session = Session(options.guest, options.program, options.timeout, emulators, Path(directory))
        if set(chosen) - {"start"}:
            print("warming the caches up", file=sys.stderr, flush=True)
            warm_up(session, [name for names in chosen.values() for name in names])
        for number in range(options.runs):
            for group, names in chosen.items():
                print(f"round {number + 1} of {options.runs}: {group}", file=sys.stderr, flush=True)
                if group in single:
                    single[group](session)
                else:
                    measure_programs(session, group, names)
        rows = list(session.rows.values())
        print(table(rows, [emulator.label for emulator in emulators]))
        print("times in seconds; a/b: speed of a as a multiple of b's (for memory: b's size over a's)")
        save(options.json, rows, about)
    return 0


if __name__ == "__main__":
    sys.exit(main())
