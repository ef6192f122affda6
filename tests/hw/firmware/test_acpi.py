"""The ACPI tables as a whole: linked, summed, accepted by iasl, and the same through fw_cfg's loader."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from hw.firmware.acpi import AcpiConfig, acpi_image, fw_cfg_files

IASL = shutil.which("iasl")
BASE = 0x1FFE0000
CONFIGS = {
    "small": AcpiConfig(512 << 20),
    "no serial port, no HPET": AcpiConfig(64 << 20, serial_ports=(), hpet=False, fw_cfg=False),
    "large": AcpiConfig(2 << 30, 6 << 30, cpu_count=32, serial_ports=(0, 1, 2, 3), pci_functions=((31, 2), (31, 3))),
}


class Memory:
    """Bytes at guest addresses, from blocks."""

    def __init__(self, blocks: dict[int, bytes]) -> None:
        self.blocks = blocks

    def read(self, gpa: int, size: int) -> bytes:
        for base, data in self.blocks.items():
            if base <= gpa and gpa + size <= base + len(data):
                return data[gpa - base : gpa - base + size]
        raise AssertionError(hex(gpa))

    def table(self, gpa: int) -> bytes:
        return self.read(gpa, int.from_bytes(self.read(gpa + 4, 4), "little"))


def walk(memory: Memory, rsdp_gpa: int) -> dict[str, bytes]:
    """Follow the pointers as an operating system does; checks every checksum on the way."""
    rsdp = memory.read(rsdp_gpa, 36)
    assert rsdp[:8] == b"RSD PTR " and rsdp[15] == 2
    assert sum(rsdp[:20]) % 256 == 0 and sum(rsdp) % 256 == 0
    rsdt_gpa, _, xsdt_gpa = struct.unpack_from("<IIQ", rsdp, 16)
    rsdt, xsdt = memory.table(rsdt_gpa), memory.table(xsdt_gpa)
    listed = struct.unpack(f"<{(len(xsdt) - 36) // 8}Q", xsdt[36:])
    assert listed == struct.unpack(f"<{(len(rsdt) - 36) // 4}I", rsdt[36:])
    tables = {"RSDT": rsdt, "XSDT": xsdt}
    for gpa in listed:
        table = memory.table(gpa)
        tables[table[:4].decode()] = table
    fadt = tables["FACP"]
    facs_gpa, dsdt_gpa = struct.unpack_from("<II", fadt, 36)
    assert struct.unpack_from("<Q", fadt, 140) == (dsdt_gpa,)
    tables["DSDT"] = memory.table(dsdt_gpa)
    for signature, table in tables.items():
        assert sum(table) % 256 == 0, signature
        assert table[:4].decode() == signature
    tables["FACS"] = memory.table(facs_gpa)
    assert facs_gpa % 64 == 0 and tables["FACS"][:4] == b"FACS"
    return tables


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_tables_are_linked_and_summed(config: AcpiConfig) -> None:
    image = acpi_image(config, BASE)
    tables = walk(Memory({BASE: image.data, 0xF59E0: image.rsdp}), 0xF59E0)
    expected = {"RSDT", "XSDT", "FACP", "FACS", "DSDT", "APIC", "MCFG", "WAET"} | ({"HPET"} if config.hpet else set())
    assert set(tables) == expected


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_fw_cfg_loader_builds_the_same_tables(config: AcpiConfig) -> None:
    """Run the linker's commands as firmware does, at addresses of our own."""
    files = {name: bytearray(data) for name, data in fw_cfg_files(config).items()}
    script = bytes(files.pop("etc/table-loader"))
    gpas = {"etc/acpi/rsdp": 0xF0000, "etc/acpi/tables": BASE}
    allocated = set()

    def text(offset: int) -> str:
        return script[offset : offset + 56].rstrip(b"\0").decode()

    for at in range(0, len(script), 128):
        (kind,) = struct.unpack_from("<I", script, at)
        name = text(at + 4)
        if kind == 1:
            allocated.add(name)
        elif kind == 2:
            offset, size = struct.unpack_from("<IB", script, at + 116)
            assert {name, text(at + 60)} <= allocated
            value = int.from_bytes(files[name][offset : offset + size], "little") + gpas[text(at + 60)]
            files[name][offset : offset + size] = value.to_bytes(size, "little")
        else:
            assert kind == 3
            offset, start, size = struct.unpack_from("<III", script, at + 60)
            files[name][offset] = -sum(files[name][start : start + size]) & 0xFF
    linked = walk(Memory({gpas[name]: bytes(data) for name, data in files.items()}), gpas["etc/acpi/rsdp"])
    image = acpi_image(config, BASE)
    assert linked == walk(Memory({BASE: image.data, 0xF0000: image.rsdp}), 0xF0000)


def test_fadt_fields() -> None:
    """The values of QEMU 7.2's q35, by their offsets in ACPI 6.4 table 5.9."""
    image = acpi_image(CONFIGS["small"], BASE)
    fadt = image.data[image.offsets["FACP"] :][:244]
    assert fadt[8] == 3
    assert struct.unpack_from("<H", fadt, 46) == (9,)
    assert struct.unpack_from("<IBB", fadt, 48) == (0xB2, 2, 3)
    assert struct.unpack_from("<IIIIIII", fadt, 56) == (0x600, 0, 0x604, 0, 0, 0x608, 0x620)
    assert tuple(fadt[88:94]) == (4, 2, 0, 4, 16, 0)
    assert fadt[108] == 0x32
    assert struct.unpack_from("<H", fadt, 109) == (2,)
    assert struct.unpack_from("<I", fadt, 112) == (0x84A5,)
    assert fadt[116:129].hex() == "01080000f90c0000000000000f"
    assert fadt[148:160].hex() == "012000000006000000000000"


def test_madt_describes_every_processor_and_override() -> None:
    image = acpi_image(AcpiConfig(512 << 20, cpu_count=3), BASE)
    madt = image.data[image.offsets["APIC"] :]
    madt = madt[: int.from_bytes(madt[4:8], "little")]
    assert struct.unpack_from("<II", madt, 36) == (0xFEE00000, 1)
    entries, offset = [], 44
    while offset < len(madt):
        entries.append(madt[offset : offset + madt[offset + 1]])
        offset += madt[offset + 1]
    assert [entry[2:5] for entry in entries if entry[0] == 0] == [bytes([n, n, 1]) for n in range(3)]
    overrides = [struct.unpack("<BIH", entry[3:]) for entry in entries if entry[0] == 2]
    assert overrides == [(0, 2, 0), (5, 5, 13), (9, 9, 13), (10, 10, 13), (11, 11, 13)]
    assert [struct.unpack_from("<I", entry, 4) for entry in entries if entry[0] == 1] == [(0xFEC00000,)]
    assert [entry[2:] for entry in entries if entry[0] == 4] == [b"\xff\x00\x00\x01"]


@pytest.mark.skipif(IASL is None, reason="iasl (Debian: acpica-tools) is not installed")
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_iasl_disassembles_and_recompiles_without_complaint(config: AcpiConfig, tmp_path: Path) -> None:
    image = acpi_image(config, BASE)
    for signature, offset in image.offsets.items():
        size = int.from_bytes(image.data[offset + 4 : offset + 8], "little")
        source = tmp_path / f"{signature}.dat"
        source.write_bytes(image.data[offset : offset + size])
        outputs = []
        for arguments in (["-d", source.name], ["-p", f"again-{signature}", f"{signature}.dsl"]):
            done = subprocess.run(
                [str(IASL), *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            assert done.returncode == 0, done.stdout
            outputs.append(done.stdout)
        assert "0 Errors, 0 Warnings, 0 Remarks" in outputs[1], outputs[1]
        assert not any(word in outputs[0] for word in ("Error", "Warning", "Invalid", "**")), outputs[0]
        if signature not in ("DSDT", "FACS"):
            again = (tmp_path / f"again-{signature}.aml").read_bytes()
            # The compiler writes its own name and version, and so another checksum.
            assert again[:9] + again[10:28] + again[36:] == (
                source.read_bytes()[:9] + source.read_bytes()[10:28] + source.read_bytes()[36:]
            )
