"""Any device of the board, unaided: random accesses of all sizes, alignments and values at random times.

Never an exception; a read fits its size; reset leads back to the state after power-on; the declared groups cover every
attribute; saved state restores.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from board import Board

from hw.core import state
from hw.core.bus import Kind
from hw.machines.q35 import DebugExitConfig, Q35Config
from hw.timer.mc146818 import RtcClock, RtcConfig

CONFIG = Q35Config(rtc=RtcConfig(1_800_000_000, RtcClock.VM), debug_exits=(DebugExitConfig(),))
ACCESSES = 3000
NAMES = sorted(Board(config=CONFIG).devices)
PORT_WINDOWS = sorted({window.name for window in Board(config=CONFIG).ports.windows})
MMIO_RANGES = sorted({found.name for found in Board(config=CONFIG).memory.view if found.kind is Kind.MMIO})


def random_value(rng: random.Random, size: int) -> int:
    bits = 8 * size
    return rng.choice((0, (1 << bits) - 1, 1 << rng.randrange(bits), rng.getrandbits(bits), rng.getrandbits(bits)))


def disturb(board: Board, rng: random.Random) -> None:
    """What the rest of the machine may do between two accesses."""
    if rng.random() < 0.1:
        board.advance(rng.choice((0, 1, 1_000, 1_000_000, 20_000_000, 1_500_000_000)))
    if rng.random() < 0.02:
        gsi = rng.randrange(24)
        board.gsi._set(gsi, rng.random() < 0.5)
    if rng.random() < 0.02:
        board.line.on_input(bytes(rng.randrange(256) for _ in range(min(board.line.can_accept(), 3))))
    if rng.random() < 0.02 and board.lapics[0].pending():
        assert -1 <= board.lapics[0].ack() <= 255


def fuzz_ports(board: Board, rng: random.Random, base: int, length: int) -> None:
    for _ in range(ACCESSES):
        disturb(board, rng)
        size = rng.choice((1, 1, 1, 2, 4))
        port = base + rng.randrange(length)
        if rng.random() < 0.5:
            board.ports.write(port, size, random_value(rng, size))
        else:
            assert 0 <= board.ports.read(port, size) < 1 << 8 * size


def fuzz_memory(board: Board, rng: random.Random, base: int, length: int) -> None:
    for _ in range(ACCESSES):
        disturb(board, rng)
        size = rng.choice((1, 2, 4, 4, 8))
        offset = min(rng.choice((rng.randrange(length), rng.randrange(min(length, 0x400)) & ~3)), length - size)
        if rng.random() < 0.5:
            board.memory.mmio_write(base + offset, size, random_value(rng, size))
        else:
            assert 0 <= board.memory.mmio_read(base + offset, size) < 1 << 8 * size


def comparable(name: str, saved: dict[str, Any]) -> dict[str, Any]:
    """Without what outlives a reset by the book or only says when the reset was."""
    times = {
        "pit": ("counters",),
        "rtc": ("cmos", "offset_ns", "stopped_ns", "seen_second", "periodic_start", "periodic_timer", "update_timer"),
        "pm": ("overflow_tick",),
        "pic": (),
        "ioapic": ("lines",),
    }
    if name == "pic":  # the inputs' levels are the devices'
        return {
            chip: {key: value for key, value in saved[chip].items() if key not in ("lines", "last", "irr")}
            for chip in ("master", "slave")
        }
    if name.startswith("lapic"):
        times[name] = ("pic_level", "lint1")
    if name == "pit":
        return {
            "counters": [
                {key: value for key, value in counter.items() if key not in ("start_ns", "stopped_at")}
                for counter in saved["counters"]
            ]
        }
    return {key: value for key, value in saved.items() if key not in times.get(name, ())}


def fuzz_all(board: Board, rng: random.Random) -> None:
    for window in list(board.ports.windows):
        fuzz_ports(board, rng, window.base, window.length)
    for found in list(board.memory.view):
        if found.kind is Kind.MMIO:
            fuzz_memory(board, rng, found.gpa, found.size)


@pytest.mark.parametrize("seed", (1, 2))
@pytest.mark.parametrize("name", PORT_WINDOWS)
def test_ports_survive_anything(name: str, seed: int) -> None:
    print(f"{name}, seed {seed}")
    board = Board(config=CONFIG)
    rng = random.Random(seed)
    for window in [window for window in board.ports.windows if window.name == name]:
        fuzz_ports(board, rng, window.base, window.length)


@pytest.mark.parametrize("seed", (1, 2))
@pytest.mark.parametrize("name", MMIO_RANGES)
def test_memory_survives_anything(name: str, seed: int) -> None:
    print(f"{name}, seed {seed}")
    board = Board(config=CONFIG)
    for found in [found for found in board.memory.view if found.name == name]:
        fuzz_memory(board, random.Random(seed), found.gpa, found.size)


@pytest.mark.parametrize("seed", (1, 2, 3))
def test_msrs_survive_anything(seed: int) -> None:
    print(f"seed {seed}")
    board = Board(config=CONFIG, cpus=2)
    rng = random.Random(seed)
    for _ in range(ACCESSES):
        disturb(board, rng)
        lapic = rng.choice(board.lapics)
        index = rng.choice((0x1B, 0x6E0, 0x800 + rng.randrange(0x40)))
        if rng.random() < 0.6:
            value = random_value(rng, 8)
            if index == 0x1B:
                value &= 0xFEE0_0D00
            lapic.write_msr(index, value if rng.random() < 0.5 else value & 0x7FF)
        else:
            read = lapic.read_msr(index)
            assert read is None or 0 <= read < 1 << 64


@pytest.mark.parametrize("seed", (1, 2))
def test_reset_leads_back_to_power_on(seed: int) -> None:
    print(f"seed {seed}")
    board = Board(config=CONFIG)
    before = {name: comparable(name, state.save(device)) for name, device in board.devices.items()}
    map_before = [(found.gpa, found.size, found.kind, found.name) for found in board.memory.view]
    windows_before = sorted((window.base, window.length, window.name) for window in board.ports.windows)
    fuzz_all(board, random.Random(seed))
    board.reset()
    for name, device in board.devices.items():
        assert comparable(name, state.save(device)) == before[name], name
    assert [(found.gpa, found.size, found.kind, found.name) for found in board.memory.view] == map_before
    assert sorted((window.base, window.length, window.name) for window in board.ports.windows) == windows_before


@pytest.mark.parametrize("name", NAMES)
def test_every_attribute_is_declared_once(name: str) -> None:
    device = Board(config=CONFIG).devices[name]
    declared = [*device.WIRING, *device.STATISTICS, *device.SAVED]
    assert len(declared) == len(set(declared))
    present = set(getattr(device, "__dict__", {}))
    for owner in type(device).__mro__:
        present |= set(owner.__dict__.get("__slots__", ()))
    assert present == set(declared)


@pytest.mark.parametrize("seed", (1, 2))
def test_saved_state_restores(seed: int) -> None:
    print(f"seed {seed}")
    board = Board(config=CONFIG)
    rng = random.Random(seed)
    fuzz_all(board, rng)
    saved = {name: state.save(device) for name, device in board.devices.items()}
    fuzz_all(board, rng)
    for name, device in board.devices.items():
        state.load(device, saved[name])
    assert {name: state.save(device) for name, device in board.devices.items()} == saved
