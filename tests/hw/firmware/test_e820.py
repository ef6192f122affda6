"""The memory map, against what Linux prints under QEMU 7.2's q35 -nodefaults (recorded from `BIOS-e820` lines;
option ROMs, which this board has none of, take another page)."""

import itertools
import struct

import pytest

from hw.firmware import BootError, E820Type, SplitRam, q35_memory_map, split_ram
from hw.firmware.e820 import fw_cfg_e820

RAM, RESERVED = E820Type.RAM, E820Type.RESERVED
MIB, GIB = 1 << 20, 1 << 30
FIXED = [
    (0xB0000000, 0xBFFFFFFF, RESERVED),
    (0xFED1C000, 0xFED1FFFF, RESERVED),
    (0xFFFC0000, 0xFFFFFFFF, RESERVED),
]
LOW = [(0, 0x9FBFF, RAM), (0x9FC00, 0x9FFFF, RESERVED), (0xF0000, 0xFFFFF, RESERVED)]


def listed(size: int, **options: bool) -> list[tuple[int, int, E820Type]]:
    return [(entry.base, entry.end - 1, entry.type) for entry in q35_memory_map(size, **options).entries]


def test_512_mib() -> None:
    top = [(0x100000, 0x1FFDFFFF, RAM), (0x1FFE0000, 0x1FFFFFFF, RESERVED)]
    assert listed(512 * MIB) == LOW + top + FIXED


def test_4_gib_with_an_amd_processor() -> None:
    top = [(0x100000, 0x7FFDFFFF, RAM), (0x7FFE0000, 0x7FFFFFFF, RESERVED)]
    high = [(0x100000000, 0x17FFFFFFF, RAM), (0xFD00000000, 0xFFFFFFFFFF, RESERVED)]
    assert listed(4 * GIB, hypertransport=True) == LOW + top + FIXED + high


@pytest.mark.parametrize(
    ("mib", "low", "high"), [(2800, 2800, 0), (2815, 2815, 0), (2816, 2048, 768), (2817, 2048, 769), (8192, 2048, 6144)]
)
def test_split(mib: int, low: int, high: int) -> None:
    assert split_ram(mib * MIB) == (low * MIB, high * MIB)


@pytest.mark.parametrize("mib", [2, 3, 64, 1024, 2048, 2815, 2816, 5000, 100_000])
def test_entries_are_sorted_and_disjoint_and_hold_all_ram(mib: int) -> None:
    entries = q35_memory_map(mib * MIB).entries
    assert all(one.end <= two.base for one, two in itertools.pairwise(entries))
    assert all(entry.size > 0 for entry in entries)
    usable = sum(entry.size for entry in entries if entry.type is RAM)
    # What is missing: the EBDA's KiB, 0xA0000 to 1 MiB, the tables.
    assert usable == mib * MIB - 0x400 - 0x60000 - 0x20000


@pytest.mark.parametrize("size", [0, 1, 640 << 10, 2 * MIB - 1])
def test_too_little_ram_is_refused(size: int) -> None:
    with pytest.raises(BootError, match="use -m 2 or more"):
        q35_memory_map(size)


def test_highest_fit() -> None:
    memory_map = q35_memory_map(64 * MIB)
    assert memory_map.highest_fit(0x1001, below=1 << 32) == memory_map.tables_base - 0x2000
    assert memory_map.highest_fit(0x1000, below=32 * MIB) == 32 * MIB - 0x1000
    assert memory_map.highest_fit(0x1000, below=32 * MIB, above=32 * MIB) is None
    assert memory_map.highest_fit(64 * MIB, below=1 << 32) is None
    assert memory_map.highest_fit(0x1000, below=0xA0000, above=0x9F000) is None


def test_fw_cfg_lists_ram_and_the_hole() -> None:
    data = fw_cfg_e820(q35_memory_map(4 * GIB, hypertransport=True))
    assert [struct.unpack_from("<QQI", data, offset) for offset in range(0, len(data), 20)] == [
        (0xFD00000000, 0x300000000, 2),
        (0, 2 * GIB, 1),
        (4 * GIB, 2 * GIB, 1),
    ]


def test_split_ram_accessor() -> None:
    ram = SplitRam(bytearray(0x3000), 0x2000)
    ram.write(0x1FFE, b"ab")
    ram.write(1 << 32, b"cd")
    assert ram.read(0x1FFE, 2) == b"ab"
    assert ram.read((1 << 32) + 1, 1) == b"d"
    assert ram.size == 0x3000
    for gpa, size in ((0x1FFF, 2), (0x2000, 1), ((1 << 32) + 0xFFF, 2), (-1, 1), ((1 << 32) - 1, 2)):
        with pytest.raises(BootError):
            ram.read(gpa, size)
        with pytest.raises(BootError):
            ram.write(gpa, bytes(size))
