"""SMBIOS structures, read back by the rules of DSP0134 and by dmidecode where that is installed."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from hw.firmware.smbios import ENTRY_POINT_SIZE, SmbiosConfig, smbios_image

GIB = 1 << 30
GPA = 0xF5A20
DMIDECODE = shutil.which("dmidecode") or shutil.which("dmidecode", path="/usr/sbin:/sbin")
SMALL = SmbiosConfig(GIB // 2)
LARGE = SmbiosConfig(2 * GIB, 40 * GIB, cpu_count=3, processor_id=0x078BFBFD_00060FB1)


def structures(image: bytes) -> list[tuple[int, int, bytes, list[bytes]]]:
    """Type, handle, formatted part and strings of each structure; checks the entry point."""
    entry = image[:ENTRY_POINT_SIZE]
    assert entry[:4] == b"_SM_" and entry[5] == ENTRY_POINT_SIZE and entry[16:21] == b"_DMI_"
    assert sum(entry) % 256 == 0 and sum(entry[16:]) % 256 == 0
    size, gpa, count = struct.unpack_from("<HIH", entry, 22)
    data = image[gpa - GPA : gpa - GPA + size]
    assert gpa - GPA + size == len(image)
    found, offset, longest = [], 0, 0
    while offset < len(data):
        kind, length, handle = struct.unpack_from("<BBH", data, offset)
        end = data.index(b"\0\0", offset + length)
        strings = data[offset + length : end].split(b"\0") if end > offset + length else []
        found.append((kind, handle, data[offset : offset + length], strings))
        longest = max(longest, end + 2 - offset)
        offset = end + 2
    assert len(found) == count
    assert struct.unpack_from("<H", entry, 8) == (longest,)
    return found


@pytest.mark.parametrize(
    ("config", "kinds"),
    [
        (SMALL, [0, 1, 3, 4, 16, 17, 19, 32, 127]),
        (LARGE, [0, 1, 3, 4, 4, 4, 16, 17, 17, 17, 19, 19, 32, 127]),
    ],
)
def test_structures(config: SmbiosConfig, kinds: list[int]) -> None:
    found = structures(smbios_image(config, GPA))
    assert [kind for kind, *_ in found] == kinds
    handles = [handle for _, handle, *_ in found]
    assert len(set(handles)) == len(handles)
    # The lengths that version 2.8 gives each type.
    lengths = {0: 24, 1: 27, 3: 22, 4: 42, 16: 23, 17: 40, 19: 31, 32: 11, 127: 4}
    assert all(len(part) == lengths[kind] for kind, _, part, _ in found)


def test_names_and_sizes() -> None:
    found = structures(smbios_image(LARGE, GPA))
    (system,) = [entry for entry in found if entry[0] == 1]
    assert system[3] == [b"Tessera", b"Standard PC (Q35 + ICH9, 2009)", b"tessera-q35"]
    modules = [struct.unpack_from("<H", part, 12)[0] for kind, _, part, _ in found if kind == 17]
    assert modules == [16384, 16384, 10240]
    ranges = [struct.unpack_from("<II", part, 4) for kind, _, part, _ in found if kind == 19]
    assert ranges == [(0, 2 * GIB // 1024 - 1), (4 * GIB // 1024, 44 * GIB // 1024 - 1)]
    processors = [struct.unpack_from("<Q", part, 8)[0] for kind, _, part, _ in found if kind == 4]
    assert processors == [LARGE.processor_id] * 3


@pytest.mark.skipif(DMIDECODE is None, reason="dmidecode is not installed")
@pytest.mark.parametrize("config", [SMALL, LARGE])
def test_dmidecode_has_no_complaint(config: SmbiosConfig, tmp_path: Path) -> None:
    # dmidecode reads a dump whose table address is an offset in the file: the image for address 0.
    (tmp_path / "dump").write_bytes(smbios_image(config, 0))
    done = subprocess.run(
        [str(DMIDECODE), "--from-dump", str(tmp_path / "dump")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0
    assert "SMBIOS 2.8 present" in done.stdout
    for complaint in ("OUT OF SPEC", "BAD INDEX", "broken", "Wrong", "invalid", "TRUNCATED"):
        assert complaint not in done.stdout, done.stdout
