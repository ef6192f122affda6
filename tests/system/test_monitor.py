"""The monitor on the console: commands as QEMU's, answers checked against the guest and, where it is there, QEMU's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from hw.firmware.demo.demo import image

from .harness import QEMU, TESSERA, Emulator

PROMPT = r"\((?:qemu|tessera)\) "


class Console:
    """An emulator that runs the demo guest to its prompt, and its monitor."""

    def __init__(self, emulator: Emulator, kernel: Path, *arguments: str) -> None:
        path = emulator.path()
        assert path is not None
        machine = ["-M", "q35", "-cpu", "qemu64", "-m", "64", "-nodefaults", "-display", "none", *emulator.extra]
        command = [*machine, "-serial", "mon:stdio", "-kernel", str(kernel), *arguments]
        self.child = pexpect.spawn(path, command, timeout=120, encoding="latin-1")
        self.child.delaybeforesend = None
        self.child.setwinsize(50, 300)

    def monitor(self) -> None:
        self.child.send("\x01c")
        self.child.expect(PROMPT)

    def console(self) -> None:
        self.child.send("\x01c")

    def ask(self, command: str) -> str:
        """The lines of the answer, without carriage returns and without the echo of the command."""
        self.child.send(command + "\r")
        self.child.expect(PROMPT)
        text = re.sub(r"\x1b\[[KDC]", "", self.child.before).replace("\r", "")
        return text.partition("\n")[2].strip("\n")


@pytest.fixture(scope="module", params=[QEMU, TESSERA], ids=lambda emulator: emulator.name)
def console(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    emulator: Emulator = request.param
    if reason := emulator.missing():
        pytest.skip(reason)
    kernel = tmp_path_factory.mktemp("monitor") / "demo"
    kernel.write_bytes(image())
    made = Console(emulator, kernel)
    try:
        made.child.expect("demo> ")
        made.monitor()
        yield made
    finally:
        made.child.close(force=True)


def test_registers(console: Console) -> None:
    lines = console.ask("info registers").splitlines()
    names = [re.match(r"[A-Z0-9#]+", line)[0] for line in lines if re.match(r"[A-Z]", line)]  # type: ignore[index]
    assert names == [
        *("CPU#0", "RAX", "RSI", "R8", "R12", "RIP", "ES", "CS", "SS", "DS", "FS", "GS", "LDT", "TR", "GDT", "IDT"),
        *("CR0", "DR0", "DR6", "EFER", "FCW", "FPR0", "FPR2", "FPR4", "FPR6"),
        *(f"XMM{n:02}" for n in range(0, 16, 2)),
    ]
    text = "\n".join(lines)
    assert re.search(r"^CS =0008 0{16} ffffffff 00af9b00 DPL=0 CS64 \[-RA\]$", text, re.M)
    assert re.search(r"^IDT=     0000000000115000 00000fff$", text, re.M)
    assert re.search(r"CR3=0000000000110000 CR4=00000620$", text, re.M)
    assert re.search(
        r"^RIP=[0-9a-f]{16} RFL=[0-9a-f]{8} \[[-DOSZAPC]{7}\] CPL=0 II=0 A20=1 SMM=0 HLT=[01]$", text, re.M
    )


def test_memory(console: Console) -> None:
    assert console.ask("xp /4xw 0x100000") == "0000000000100000: 0x1badb002 0x00010003 0xe4514ffb 0x00100000"
    assert console.ask("x /3xb 0x100000") == "0000000000100000: 0x02 0xb0 0xad"
    assert console.ask("x /2dg 0x100000") == "0000000000100000:      281488325980162     4503603457904635"
    assert console.ask("x /1xw 0x7fffffff0000").endswith("00007fffffff0000: Cannot access memory")
    assert console.ask("x /1xg 0x100000+0x8").endswith(f"0x{0x00100000_E4514FFB:016x}")
    assert console.ask("x /2xw $pc").startswith("000000000010")


def test_instructions(console: Console) -> None:
    cli, load = console.ask("x /2i 0x100024").splitlines()
    assert cli.rstrip() == "0x00100024:  fa                       cli"
    assert load == "0x00100025:  bc 00 e0 11 00           movl     $0x11e000, %esp"


def test_stop_and_go_on(console: Console) -> None:
    assert console.ask("info status") == "VM status: running"
    console.ask("stop")
    assert console.ask("info status") == "VM status: paused"
    before = console.ask("info registers")
    assert console.ask("info registers") == before
    console.ask("cont")
    assert console.ask("info status") == "VM status: running"


def test_interrupt_controllers(console: Console) -> None:
    text = console.ask("info pic")
    assert len(re.findall(r"^  pin \d+ +0x[0-9a-f]{16} dest=\w+ vec=\d+", text, re.M)) == 24
    assert re.search(r"^pic0: irr=[0-9a-f]{2} imr=ee isr=00 hprio=0 irq_base=20 rr_sel=0 elcr=00 fnm=0$", text, re.M)
    apic = console.ask("info lapic")
    assert re.search(r"^LVT0\t 0x\w{8} active-hi edge +(masked)? +ExtINT \(vec 0\)$", apic, re.M)
    assert re.search(r"^SPIV\t 0x00000147 APIC enabled, focus=off, spurious vec 71$", apic, re.M)
    assert re.search(r"^ISR\t \(none\)$", apic, re.M)


def test_buses(console: Console) -> None:
    pci = console.ask("info pci")
    assert "  Bus  0, device   0, function 0:\n    Host bridge: PCI device 8086:29c0\n" in pci
    assert "  Bus  0, device  31, function 0:\n    ISA bridge: PCI device 8086:2918\n" in pci
    tree = console.ask("info mtree -f")
    assert re.search(r"^  00000000fec00000-00000000fec00fff \(prio 0, i/o\): ioapic$", tree, re.M)
    assert re.search(r"^  0000000000000020-0000000000000021 \(prio 0, i/o\): pic$", tree, re.M)


def test_unknown_commands(console: Console) -> None:
    assert console.ask("frobnicate").startswith("unknown command: 'frobnicate'")
    assert console.ask("info frobnicate") == "unknown command: 'info frobnicate'"
    assert "system_reset" in console.ask("help")


def test_the_console_is_left_as_it_was(console: Console) -> None:
    console.console()
    console.child.send("\r")
    console.child.expect("demo> ")
    console.monitor()
    assert console.ask("info status") == "VM status: running"


def test_reset_and_power_button(console: Console) -> None:
    console.ask("system_reset")
    console.console()
    console.child.expect("long mode")
    console.child.expect("demo> ")
    console.monitor()
    assert "TB" in console.ask("info jit")
    console.child.send("quit\r")
    console.child.expect(pexpect.EOF)
    console.child.close()
    assert console.child.exitstatus == 0


@pytest.mark.parametrize("emulator", [QEMU, TESSERA], ids=lambda emulator: emulator.name)
def test_no_shutdown_keeps_the_machine(emulator: Emulator, tmp_path: Path) -> None:
    if reason := emulator.missing():
        pytest.skip(reason)
    kernel = tmp_path / "demo"
    kernel.write_bytes(image())
    console = Console(emulator, kernel, "-no-shutdown", "-append", "poweroff")
    try:
        console.child.expect("self-check")
        console.monitor()
        for _ in range(200):
            status = console.ask("info status")
            if "paused" in status:
                break
        assert status.startswith("VM status: paused"), status
        console.child.send("quit\r")
        console.child.expect(pexpect.EOF)
    finally:
        console.child.close(force=True)
