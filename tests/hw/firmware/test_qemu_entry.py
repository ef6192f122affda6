"""The entry states and tables, judged by qemu-system-x86_64: our loaders prepare RAM, QEMU runs it without firmware."""

import os
from pathlib import Path

import pytest
from images import Machine
from qemu_oracle import QEMU, run

from hw.firmware import FirmwareConfig, install_q35_tables, load_kernel
from hw.firmware.demo import SUCCESS, elf_image, image, load_demo

pytestmark = pytest.mark.skipif(QEMU is None, reason="qemu-system-x86_64 is not installed")
EXIT = ("-device", "isa-debug-exit,iobase=0xf4")


@pytest.mark.parametrize("protocol", ["long mode", "multiboot", "PVH"])
def test_demo_guest(tmp_path: Path, protocol: str) -> None:
    machine = Machine(16)
    install_q35_tables(machine.ram, machine.map, FirmwareConfig())
    if protocol == "long mode":
        entry = load_demo(machine.ram, machine.map, "quiet exit")
    else:
        kernel = tmp_path / "demo"
        kernel.write_bytes(image() if protocol == "multiboot" else elf_image())
        entry = load_kernel(kernel, None, "quiet exit", machine.ram, machine.map)
    result = run(entry, machine.buffer, tmp_path, options=EXIT)
    assert SUCCESS in result.output, result.output
    assert result.status == 33


KERNEL = os.environ.get("TESSERA_TEST_KERNEL")


@pytest.mark.skipif(KERNEL is None, reason="TESSERA_TEST_KERNEL names no bzImage")
def test_linux_has_no_complaint_about_the_tables(tmp_path: Path) -> None:
    """Linux gets as far as its missing root file system, and logs nothing about firmware on the way."""
    machine = Machine(256)
    install_q35_tables(machine.ram, machine.map, FirmwareConfig())
    cmdline = "console=ttyS0 panic=-1 ignore_loglevel"
    entry = load_kernel(Path(str(KERNEL)), None, cmdline, machine.ram, machine.map)
    result = run(entry, machine.buffer, tmp_path)
    assert "ACPI: Interpreter enabled" in result.output
    assert "DMI: Tessera Standard PC (Q35 + ICH9, 2009)" in result.output
    assert "Unable to mount root fs" in result.output
    for complaint in (
        "ACPI Error",
        "ACPI Warning",
        "ACPI BIOS",
        "[Firmware",
        "PCI: Fatal",
        "MCFG area",
        "not reserved",
    ):
        assert complaint not in result.output, complaint
