"""The q35 as a guest finds it: map, PCI, power, resets, fw_cfg, keyboard controller, small ports."""

from __future__ import annotations

import struct

from board import Board, S

from hw.core.bus import Kind
from hw.machines.q35 import DebugExitConfig, Q35Config, low_ram_size
from hw.misc import fw_cfg

MIB = 1 << 20


def ranges(board: Board) -> list[tuple[int, int, str, int]]:
    return [(found.gpa, found.end, found.kind.name, found.ram_offset) for found in board.memory.view]


def test_memory_map_equals_qemus() -> None:
    """`info mtree -f` of QEMU 7.2, -m 512, without the devices that we do not have."""
    assert ranges(Board(ram=512 * MIB)) == [
        (0x0000_0000, 0x000A_0000, "RAM", 0),
        (0x000C_0000, 0x000E_8000, "ROM", 0xC0000),
        (0x000E_8000, 0x000F_0000, "RAM", 0xE8000),
        (0x000F_0000, 0x0010_0000, "ROM", 0xF0000),
        (0x0010_0000, 0x2000_0000, "RAM", 0x100000),
        (0xB000_0000, 0xC000_0000, "MMIO", 0),
        (0xFEC0_0000, 0xFEC0_1000, "MMIO", 0),
        (0xFED0_0000, 0xFED0_0400, "MMIO", 0),
        (0xFED1_C000, 0xFED2_0000, "MMIO", 0),
        (0xFEE0_0000, 0xFEF0_0000, "MMIO", 0),
    ]


def test_ram_splits_at_4_gib() -> None:
    assert low_ram_size(2 << 30) == 2 << 30
    assert low_ram_size(0xAFF0_0000) == 0xAFF0_0000
    assert low_ram_size(3 << 30) == 2 << 30


def test_pci_configuration_as_seabios_leaves_it() -> None:
    board = Board()
    assert board.config_read(0, 0, 0x00) == 0x29C0_8086
    assert board.config_read(0, 0, 0x2C) == 0x1100_1AF4
    assert board.config_read(0, 0, 0x60) == 0xB000_0001
    assert board.config_read(0x1F, 0, 0x00) == 0x2918_8086
    assert board.config_read(0x1F, 0, 0x08) == 0x0601_0002
    assert board.config_read(0x1F, 0, 0x40) == 0x0000_0601
    assert board.config_read(0x1F, 0, 0x60) == 0x0B0B_0A0A
    assert board.config_read(0x1F, 0, 0xF0) == 0xFED1_C001
    assert board.config_read(0x1F, 2, 0x00) == 0xFFFF_FFFF
    assert board.readl(0xB00F_8000) == 0x2918_8086
    assert board.readl(0xB00F_8100) == 0xFFFF_FFFF  # conventional functions have 256 bytes
    assert board.readl(0xB010_0000) == 0xFFFF_FFFF


def test_ecam_moves_and_goes() -> None:
    board = Board()
    board.writel(0xB000_0060, 0xE000_0005)  # 64 MiB at 0xE0000000
    assert (0xE000_0000, 0xE400_0000, "MMIO", 0) in ranges(board)
    assert board.readl(0xE000_0000) == 0x29C0_8086
    assert board.readl(0xB000_0000) == 0xFFFF_FFFF
    board.config_write(0, 0, 0x60, 0)
    assert board.readl(0xE000_0000) == 0xFFFF_FFFF


def test_pam_decides_who_answers_below_1_mib() -> None:
    board = Board()
    board.memory.mmio_write(0xF_0000, 4, 0x1234_5678)  # read-only: dropped
    assert board.readl(0xF_0000) == 0
    board.config_write(0, 0, 0x90, 0x30, 1)
    board.memory.mmio_write(0xF_0000, 4, 0x1234_5678)
    assert board.readl(0xF_0000) == 0x1234_5678
    assert bytes(board.memory.ram[0xF_0000:0xF_0004]) == b"\x78\x56\x34\x12"
    board.config_write(0, 0, 0x90, 0x00, 1)
    assert board.readl(0xF_0000) == 0xFFFF_FFFF
    assert board.readl(0xA_0000) == 0xFFFF_FFFF


def test_smram_opens_and_locks() -> None:
    board = Board()
    board.config_write(0, 0, 0x9D, 0x4A, 1)
    assert board.memory.view.find(0xA_0000) is not None
    board.config_write(0, 0, 0x9D, 0x1A, 1)
    assert board.memory.view.find(0xA_0000) is None
    board.config_write(0, 0, 0x9D, 0x4A, 1)
    assert board.config_read(0, 0, 0x9D, 1) == 0x1A
    board.reset()
    assert board.config_read(0, 0, 0x9D, 1) == 0x0A


def test_power_off_and_reset_reach_the_owner() -> None:
    board = Board(config=Q35Config(debug_exits=(DebugExitConfig(0xF4, 4),)))
    board.outw(0x604, 0x2000)
    board.outb(0xCF9, 0x02)
    board.outb(0xCF9, 0x06)
    board.outb(0x64, 0xFE)
    board.outb(0x92, 0x03)
    board.outl(0xF4, 0x10)
    assert board.shutdowns == [("guest-shutdown", None), ("debug-exit", 0x21)]
    assert board.resets == ["guest-reset"] * 3


def test_acpi_enable_and_the_power_button() -> None:
    board = Board()
    assert board.inw(0x604) == 0
    board.outb(0xB2, 2)
    assert board.inw(0x604) == 1
    board.outw(0x602, 0x0100)
    board.power_button()
    assert board.ioapic.lines >> 9 & 1
    assert board.inw(0x600) & 0x100
    board.outw(0x600, 0x0100)
    assert not board.ioapic.lines >> 9 & 1
    board.outb(0xB2, 3)
    assert board.inw(0x604) == 0
    board.outb(0xB2, 0x55)
    assert board.fake_cpus[0].events == ["smi"]


def test_pm_timer_and_its_overflow() -> None:
    board = Board()
    start = board.inl(0x608)
    board.advance(S)
    assert board.inl(0x608) - start == 3_579_545
    board.outw(0x602, 0x0001)
    board.outw(0x600, 0x0001)
    assert not board.pm.sci.level
    board.advance(2 * S)  # bit 23 toggles every 2.34 s
    assert board.pm.sci.level
    board.outw(0x600, 0x0001)
    assert not board.pm.sci.level


def test_the_watchdog_resets_only_when_it_may() -> None:
    """As Linux' iTCO_wdt programs it: TCO_TMR, reload, halt off; 0.6 s a tick, the second timeout counts."""
    board = Board()
    assert board.inl(0x668) == 0x0008_0000 and board.inl(0x670) == 0x0004_0003
    board.outw(0x672, 10)
    board.outw(0x660, 1)
    board.advance(3 * S)
    assert board.inw(0x660) == 5
    board.advance(4 * S)
    assert board.inw(0x664) == 8 and board.inw(0x666) == 0
    board.advance(6 * S)
    assert board.inw(0x666) == 2 and board.resets == []  # NO_REBOOT
    board.writel(0xFED1_F410, 0)
    board.outw(0x660, 1)
    board.outw(0x668, 0x0800)  # halted
    board.advance(100 * S)
    assert board.resets == []
    board.outw(0x668, 0)
    board.advance(13 * S)
    assert board.resets == ["watchdog"]


def test_gpe() -> None:
    board = Board()
    board.outb(0x628, 0x04)
    board.pm.set_gpe(2)
    assert board.pm.sci.level and board.inb(0x620) == 4
    board.outb(0x620, 4)
    assert not board.pm.sci.level


def test_pmbase_moves() -> None:
    board = Board()
    board.config_write(0x1F, 0, 0x40, 0xB001)
    assert board.inl(0x608) == 0xFFFF_FFFF
    board.outw(0xB004, 1)
    assert board.inw(0xB004) == 1
    board.config_write(0x1F, 0, 0x44, 0x00, 1)
    assert board.inw(0xB004) == 0xFFFF


def test_fw_cfg_ports() -> None:
    board = Board()
    board.fw_cfg.add_file("etc/b", b"second")
    board.fw_cfg.add_file("etc/a", b"first")
    read = lambda count: bytes(board.inb(0x511) for _ in range(count))  # noqa: E731 local shorthand
    board.outw(0x510, fw_cfg.SIGNATURE)
    assert read(6) == b"QEMU\0\0"
    board.outw(0x510, fw_cfg.ID)
    assert read(4) == b"\x03\0\0\0"
    board.outw(0x510, fw_cfg.RAM_SIZE)
    assert struct.unpack("<Q", read(8)) == (16 * MIB,)
    board.outw(0x510, fw_cfg.FILE_DIR)
    assert struct.unpack(">I", read(4)) == (2,)
    entries = [struct.unpack(">IHH56s", read(64)) for _ in range(2)]
    assert [(size, name.rstrip(b"\0")) for size, _, _, name in entries] == [(5, b"etc/a"), (6, b"etc/b")]
    board.outw(0x510, entries[0][1])
    assert read(5) == b"first"
    assert board.inl(0x514) == 0x554D_4551 and board.inl(0x518) == 0x4746_4320  # "QEMU CFG"


def dma(board: Board, control: int, length: int, address: int) -> int:
    """Run one transfer with the descriptor at 0x1000; returns the control word afterwards."""
    board.memory.dma_write(0x1000, struct.pack(">IIQ", control, length, address))
    board.outl(0x514, 0)
    board.outl(0x518, int.from_bytes((0x1000).to_bytes(4, "big"), "little"))
    return int(struct.unpack(">I", board.memory.dma_read(0x1000, 4))[0])


def test_fw_cfg_dma() -> None:
    board = Board()
    written: list[int] = []
    key = board.fw_cfg.add_file("opt/data", bytes(range(100)))
    writable = board.fw_cfg.add_file("etc/w", bytes(8), written=lambda: written.append(1))
    assert dma(board, key << 16 | 8 | 2, 110, 0x20_0000) == 0
    assert bytes(board.memory.ram[0x20_0000:0x20_006E]) == bytes(range(100)) + bytes(10)
    assert dma(board, key << 16 | 8 | 4, 10, 0) == 0
    assert board.inb(0x511) == 10
    assert dma(board, key << 16 | 8 | 16, 4, 0x20_0000) == 1  # read-only
    assert dma(board, writable << 16 | 8 | 16, 8, 0x20_0010) == 0
    assert board.fw_cfg.file("etc/w") == bytes(range(16, 24)) and written == [1]
    assert dma(board, writable << 16 | 8 | 16, 9, 0x20_0010) == 1
    assert dma(board, key << 16 | 8 | 2, 0xFFFF_FFFF, 0xC000_0000) == 0  # into nowhere: done, nothing lost


def test_i8042_as_linux_probes_it() -> None:
    """drivers/input/serio/i8042.c: flush, self-test, command byte, AUX loopback; then ATKBD's identify."""
    board = Board()

    def answer() -> tuple[int, int]:
        status = board.inb(0x64)
        return status & 0x21, board.inb(0x60)

    board.outb(0x64, 0xAA)
    assert answer() == (0x01, 0x55)
    board.outb(0x64, 0x20)
    assert answer() == (0x01, 0x61)
    board.outb(0x64, 0xD3)
    board.outb(0x60, 0x5A)
    assert answer() == (0x21, 0x5A)
    board.outb(0x64, 0x60)
    board.outb(0x60, 0x43)
    board.outb(0x60, 0xF2)
    assert [answer(), answer(), answer()] == [(1, 0xFA), (1, 0xAB), (1, 0x41)]
    assert not board.inb(0x64) & 1
    board.outb(0x64, 0xD4)
    board.outb(0x60, 0xFF)
    assert [answer(), answer(), answer()] == [(0x21, 0xFA), (0x21, 0xAA), (0x21, 0x00)]
    for rate in (200, 100, 80):
        for value in (0xF3, rate):
            board.outb(0x64, 0xD4)
            board.outb(0x60, value)
            assert answer() == (0x21, 0xFA)
    board.outb(0x64, 0xD4)
    board.outb(0x60, 0xF2)
    assert [answer(), answer()] == [(0x21, 0xFA), (0x21, 0x03)]  # a wheel


def test_keys_are_translated_and_interrupt() -> None:
    board = Board()
    board.outb(0x64, 0x60)
    board.outb(0x60, 0x41)
    for chip, port in ((board.pic.master, 0x21), (board.pic.slave, 0xA1)):
        assert chip is not None
        board.outb(port, 0x00)
    board.i8042.keyboard.key(b"\x1c")
    assert board.i8042.keyboard_irq.level
    assert board.inb(0x60) == 0x1E
    board.i8042.keyboard.key(b"\xf0\x1c")
    assert board.inb(0x60) == 0x9E
    assert not board.i8042.keyboard_irq.level


def test_port_92_and_a20() -> None:
    board = Board()
    heard: list[bool] = []
    board.port92.set_a20 = board.i8042.set_a20 = heard.append
    assert board.inb(0x92) == 2
    board.outb(0x92, 0)
    board.outb(0x64, 0xDF)
    board.outb(0x64, 0xD1)
    board.outb(0x60, 0xCD)
    assert heard == [False, True, False]


def test_a_firmware_machine_starts_at_hardware_reset_values() -> None:
    board = Board(config=Q35Config(firmware=True))
    assert board.config_read(0, 0, 0x60) == 0xB000_0000
    assert board.config_read(0x1F, 0, 0x40) == 1
    assert board.inl(0x608) == 0xFFFF_FFFF
    assert [found.kind for found in board.memory.view][:2] == [Kind.RAM, Kind.RAM]
    assert board.memory.view.find(0xF_0000) is None


def test_nmi_reaches_every_cpu() -> None:
    board = Board(cpus=2)
    board.lapics[1].write_register(0x360, 0x400)
    board.nmi()
    assert [cpu.events for cpu in board.fake_cpus] == [["nmi"], ["nmi"]]
