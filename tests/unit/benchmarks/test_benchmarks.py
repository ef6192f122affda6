"""The benchmark tools: parsing, statistics, the images whose first instruction is timed, the guest program itself."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from benchmarks import first_instruction, memory_use, report, run
from benchmarks.report import Row

ROOT = Path(__file__).parents[3]


def test_results_amid_console_noise() -> None:
    text = (
        "\x1b[2Jdhrystone 10 00000000000000ff 0.250000\n[    1.0] sieve 3 kernel line\nsieve 3 0123456789abcdef 1.5\n"
    )
    assert run.parse_results(text) == {"dhrystone": ("10 00000000000000ff", 0.25), "sieve": ("3 0123456789abcdef", 1.5)}


def test_geomean_leaves_out_what_is_missing() -> None:
    assert report.geomean([2.0, None, 8.0]) == pytest.approx(4.0)
    assert report.geomean([None]) is None


def row() -> Row:
    made = Row("integer", "sieve")
    for label, values in {"native": [1.0], "qemu": [6.0, 4.0, 5.0], "tessera": [2.5]}.items():
        for value in values:
            made.add(label, value)
    return made


def test_speed_is_by_medians() -> None:
    assert row().speed("tessera", "qemu") == pytest.approx(2.0)
    assert row().speed("qemu", "native") == pytest.approx(0.2)


def test_a_wrong_result_has_no_speed() -> None:
    wrong = row()
    wrong.wrong.add("tessera")
    assert wrong.speed("tessera", "qemu") is None
    assert "WRONG" in report.table([wrong], ["qemu", "tessera"])


def test_a_failed_run_is_shown() -> None:
    failed = Row("integer", "sieve", failed={"tessera"})
    assert "failed" in report.table([failed], ["tessera"])


def test_json_holds_every_run(tmp_path: Path) -> None:
    report.save(tmp_path / "build" / "b.json", [row()], {"cpu": "x"})
    saved = json.loads((tmp_path / "build" / "b.json").read_text())
    assert saved["rows"][0]["runs"]["qemu"] == [6.0, 4.0, 5.0]


def test_guest_ram_is_left_out_of_memory() -> None:
    smaps = "7f0000000000-7f0020000000 rw-p 0 00:00 0\nRss: 100 kB\nPss:  400000 kB\n"
    smaps += "7f0030000000-7f0030100000 rw-p 0 00:00 0\nPss:  64 kB\nPss_Dirty: 9 kB\n"
    assert memory_use.above_guest_ram(smaps, 512 << 20) == 64 << 10


def test_choose() -> None:
    programs = {"integer": ["sieve", "lz4"], "string": ["memcpy"]}
    assert run.choose(["lz4,boot"], programs) == {"boot": [], "integer": ["lz4"]}
    assert run.choose(["string"], programs) == {"string": ["memcpy"]}
    with pytest.raises(SystemExit, match="nonesuch"):
        run.choose(["nonesuch"], programs)


def test_pvh_kernel_is_an_elf_file_with_the_note() -> None:
    elf = ELFFile(io.BytesIO(first_instruction.pvh_kernel()))
    load, note = elf.iter_segments()
    assert load["p_paddr"] == elf["e_entry"] == 0x100000
    (entry,) = note.iter_notes()
    assert (entry["n_name"], entry["n_type"] if isinstance(entry["n_type"], int) else 18) == ("Xen", 18)
    assert int.from_bytes(entry["n_descdata"], "little") == 0x100000


def test_rom_jumps_from_the_reset_vector_to_its_start() -> None:
    rom = first_instruction.rom()
    assert len(rom) == 0x10000
    assert rom[0xFFF0] == 0xE9
    assert (0xFFF3 + int.from_bytes(rom[0xFFF1:0xFFF3], "little")) & 0xFFFF == 0


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guest program, built by its own Makefile."""
    if shutil.which("gcc") is None or shutil.which("make") is None:
        pytest.skip("no C compiler")
    out = tmp_path_factory.mktemp("tbench") / "tbench"
    subprocess.run(["make", "-s", "-C", str(ROOT / "benchmarks/guest"), f"OUT={out}"], check=True)
    return out


def test_program_groups_are_the_tools(program: Path) -> None:
    assert set(run.program_names(program)) == set(run.PROGRAM_GROUPS)


def test_programs_repeat_their_results(program: Path) -> None:
    """Small runs of everything, twice: the checksum depends on nothing but the iterations."""
    names = [name for group in run.program_names(program).values() for name in group]
    request = ",".join(f"{name}:20" for name in names)
    results = []
    for _ in range(2):
        done = subprocess.run([str(program), "run", request], capture_output=True, text=True, check=True)
        results.append({name: checksum for name, (checksum, _) in run.parse_results(done.stdout).items()})
    assert set(results[0]) == set(names)
    assert results[0] == results[1]


def test_known_answers(program: Path) -> None:
    """Where the answer is known from elsewhere: ten queens have 724 solutions, fibonacci(20) is 6765."""
    done = subprocess.run([str(program), "run", "queens:2,recursion:3"], capture_output=True, text=True, check=True)
    found = {name: int(checksum.split()[1], 16) for name, (checksum, _) in run.parse_results(done.stdout).items()}
    assert found == {"queens": 2 * 724, "recursion": 3 * 6765}


def test_unknown_name(program: Path) -> None:
    assert subprocess.run([str(program), "nonesuch"], capture_output=True, check=False).returncode == 2
    assert subprocess.run([str(program), "run", "nonesuch"], capture_output=True, check=False).returncode == 1
