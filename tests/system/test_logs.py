"""`-d`: ours beside QEMU's, for the same guest: the same events, the same instructions, lines of the same shape."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from hw.firmware.demo.demo import image

from .harness import QEMU, TESSERA, Emulator

EXIT_GOOD = 0x10 << 1 | 1
GUEST = "0x100000..0x420000"
FIRST_BLOCK = "0x100024+1"
WRITTEN_CODE = range(0x119000, 0x11A000)  # the guest's own code buffer, where an address has had several instructions
# Error codes for IDT entries: the manual has vector * 8 + 2 in every mode (SDM volume 3, 6.13), QEMU vector * 16 + 2 in
# long mode.
IDT_ERROR = re.compile(r"(v=0[bd]) e=(0502|0282|0512|028a) ")
# Not the guest's doing: the timer and the board's interrupts come when they come.
HARDWARE = re.compile(r"v=2")


def run(emulator: Emulator, directory: Path, items: str, dfilter: str, *arguments: str) -> str:
    """The log of the demo guest's self-check."""
    if reason := emulator.missing():
        pytest.skip(reason)
    path = emulator.path()
    assert path is not None
    kernel, log = directory / "demo", directory / f"{emulator.name}.log"
    kernel.write_bytes(image())
    machine = ["-M", "q35", "-cpu", "qemu64", "-m", "64", "-nodefaults", "-display", "none", "-no-reboot"]
    guest = ["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel", str(kernel), "-append", "exit"]
    logging = ["-d", items, "-D", str(log), "-dfilter", dfilter]
    command = [path, *machine, *emulator.extra, *guest, *logging, *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=300, check=False)
    assert done.returncode == EXIT_GOOD, done.stdout + done.stderr
    return log.read_text(encoding="utf-8")


def instructions(log: str) -> dict[int, tuple[str, str]]:
    """Address -> (bytes, text) of everything under `IN:`."""
    found = {}
    for block in re.findall(r"^IN: \n(.*?)\n\n", log, re.M | re.S):
        for line in re.findall(r"^0x[0-9a-f]{8}:  .*(?:\n0x[0-9a-f]{8}:  [0-9a-f ]+$)*", block, re.M):
            first, *rest = line.split("\n")
            address, code, text = first[2:10], first[13:37].strip(), first[38:].strip()
            code = " ".join([code, *(r[13:].strip() for r in rest)])
            found[int(address, 16)] = (code, text)
    return found


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """QEMU's and ours."""
    directory = tmp_path_factory.mktemp("logs")
    return (
        run(QEMU, directory, "in_asm,int", GUEST, "-serial", "null"),
        run(TESSERA, directory, "in_asm,int", GUEST, "-serial", "null"),
    )


def events(log: str) -> list[str]:
    found = re.findall(r"^ *\d+: (v=.*)$", log, re.M)
    return [IDT_ERROR.sub(r"\1 e=IDT ", event) for event in found if not HARDWARE.match(event)]


def test_exceptions_are_qemus(logs: tuple[str, str]) -> None:
    expected = events(logs[0])
    assert len(expected) > 15
    assert events(logs[1]) == expected
    checks = [re.findall(r"^check_exception .*$", log, re.M) for log in logs]
    assert checks[1] == checks[0]


def from_rip(text: str) -> str:
    return re.sub(r"RFL=\w+ \[.{7}\]", "RFL", text[text.index("RIP=") :])


def test_registers_at_exceptions_are_qemus(logs: tuple[str, str]) -> None:
    """Every line of the dump but three: how the flags are kept, a TSS that QEMU does not mark busy, null segments.

    Nor does QEMU enter the limit's upper bits into what SYSRET loads.
    """
    dumps = []
    for log in logs:
        parts = re.findall(r"^ *\d+: (v=.*)\n((?:[A-Z][A-Z0-9 ]{1,3}=.*\n)+)", log, re.M)
        dumps.append([text for event, text in parts if not HARDWARE.match(event)])
    own = re.compile(r"^(CCS=|TR =|[DEFGS]S =0000 ).*\n|(?<= ffffffff 00[ac])[0f](?=fb00|f300)", re.M)
    theirs, ours = ([own.sub("", text) for text in found] for found in dumps)
    assert ours[:10] == theirs[:10]
    # Later on, some general registers, and the flags that come of them, hold what the timers' checks have measured.
    assert list(map(from_rip, ours)) == list(map(from_rip, theirs))
    assert {len(text.splitlines()) for text in dumps[1]} == {len(text.splitlines()) for text in dumps[0]}


def test_instructions_are_qemus(logs: tuple[str, str]) -> None:
    theirs, ours = instructions(logs[0]), instructions(logs[1])
    common = [at for at in ours if at in theirs and at not in WRITTEN_CODE]
    assert len(common) > 1000
    assert len(common) > 0.95 * len(theirs)
    assert {at: ours[at][0] for at in common} == {at: theirs[at][0] for at in common}
    # Two versions of capstone spell some constants and a few names differently.
    assert sum(ours[at] == theirs[at] for at in common) > 0.97 * len(common)


def shape(line: str) -> str:
    """The line with every hexadecimal digit replaced."""
    return re.sub(r"[0-9a-f]", "h", re.sub(r"\[[-DOSZAPC]{7}\]", "[flags]", line))


def test_lines_of_exec_and_cpu_have_qemus_shape(tmp_path: Path) -> None:
    texts = [run(e, tmp_path, "exec,cpu,nochain", FIRST_BLOCK, "-serial", "null") for e in (QEMU, TESSERA)]
    blocks = []
    for text in texts:
        found = re.search(r"^Trace 0: 0x\w+ (\[.*\] )\n((?:E?[A-Z][A-Z0-9 ]{1,3}=.*\n){18})", text, re.M)
        assert found is not None, text[:2000]
        blocks.append([found[1], *found[2].splitlines()])
    own = re.compile(r"CCO=\w+|(?<=\[-[RW])[A-](?=\])")  # how flags are kept; accessed bits that a loader leaves
    assert [shape(own.sub("", line)) for line in blocks[1]] == [shape(own.sub("", line)) for line in blocks[0]]
    assert "/0000000000100024/" in blocks[1][0]


def test_code_and_ir_of_every_instruction(tmp_path: Path) -> None:
    log = run(TESSERA, tmp_path, "in_asm,op,op_opt,out_asm", "0x100000..0x102000", "-serial", "null")
    blocks = log.split("----------------\nIN: \n")[1:]
    assert len(blocks) > 100
    for block in blocks:
        pcs = list(instructions("IN: \n" + block))
        for title in ("OP:", "OP after optimization and liveness analysis:"):
            part = block.split(f"\n{title}\n")[1].split("\n\nO")[0]
            assert [int(pc, 16) for pc in re.findall(r"^ ---- ([0-9a-f]{16}) ", part, re.M)] == pcs
            assert part.count(" insn_start ") == len(pcs)
        size, code = re.search(r"^OUT: \[size=(\d+)\]\n(.*)", block, re.M | re.S).groups()  # type: ignore[union-attr]
        lines = re.findall(r"^0x[0-9a-f]{12}:  ((?:[0-9a-f]{2} ?){1,8})", code, re.M)
        assert sum(len(line.split()) for line in lines) == int(size)
        assert f"guest addr 0x{pcs[0]:016x} + tb prologue" in code


def test_nochain_shows_each_entry(tmp_path: Path) -> None:
    """A loop's block is seen once where it is chained to itself, and in each round without."""
    seen = []
    for items in ("exec", "exec,nochain"):
        log = run(TESSERA, tmp_path, items, "0x100000..0x102000", "-serial", "null")
        seen.append(len(re.findall(r"^Trace ", log, re.M)))
    assert seen[1] > 3 * seen[0]


def test_full_disk_ends_the_log_only(tmp_path: Path) -> None:
    if reason := TESSERA.missing():
        pytest.skip(reason)
    path = TESSERA.path()
    assert path is not None
    (tmp_path / "demo").write_bytes(image())
    command = [path, "-M", "q35", "-m", "64", "-nodefaults", "-display", "none", "-serial", "stdio", "-append", "exit"]
    command += ["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel", str(tmp_path / "demo")]
    command += ["-d", "in_asm,exec,cpu", "-D", "/dev/full"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == EXIT_GOOD
    assert "self-check: OK" in done.stdout
    assert done.stderr.count("the log ends here") == 1 and "Traceback" not in done.stderr


def test_unimplemented_accesses_are_told(tmp_path: Path) -> None:
    from . import tiny

    kernel = tiny.assemble("mov dx, 0x5555\n in al, dx\n mov al, 0\n out 0xf4, al", tmp_path)
    log = tmp_path / "log"
    status, output = tiny.run(TESSERA, kernel, "-d", "unimp,guest_errors", "-D", str(log))
    assert status == 1, output
    assert "port 0x5555: read of 1 bytes\n" in log.read_text()
