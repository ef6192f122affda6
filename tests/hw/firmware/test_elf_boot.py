"""PVH and multiboot, with hand-made images."""

import random
import struct
from pathlib import Path

import pytest
from images import MIB, Machine, bzimage, elf, multiboot_header, xen_note

from hw.firmware import BootError, CpuEntry, load_kernel
from hw.firmware.cpu_entry import GPR_NAMES

RAX, RBX = GPR_NAMES.index("rax"), GPR_NAMES.index("rbx")
CODE = bytes(range(1, 101))
X86_64, I386, AARCH64 = 62, 3, 183


def boot(tmp_path: Path, image: bytes, machine: Machine, cmdline: str = "", initrd: str | None = None) -> CpuEntry:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(image)
    return load_kernel(kernel, None if initrd is None else Path(initrd), cmdline, machine.ram, machine.map)


def assert_flat_protected_mode(machine: Machine, entry: CpuEntry) -> None:
    assert not entry.long_mode and entry.cr0 & 0x80000001 == 1 and entry.cr4 == 0 and entry.rflags == 2
    for segment in (entry.cs, entry.ds, entry.es, entry.fs, entry.gs, entry.ss):
        assert segment.base == 0 and segment.limit == 0xFFFFFFFF and segment.attr >> 14 & 1
        descriptor = machine.ram.read(entry.gdtr.base + (segment.selector & ~7), 8)
        assert descriptor == segment.descriptor()


# --- PVH


@pytest.mark.parametrize("bits", [32, 64])
def test_pvh(tmp_path: Path, bits: int) -> None:
    machine = Machine()
    machine.ram.write(0x200000 + len(CODE), b"\xff" * 50)
    (tmp_path / "initrd").write_bytes(b"init" * 100)
    image = elf(CODE, 0x200000, bits=bits, machine=X86_64 if bits == 64 else I386, note=xen_note(0x200010), bss=50)
    entry = boot(tmp_path, image, machine, "quiet", str(tmp_path / "initrd"))
    assert_flat_protected_mode(machine, entry)
    assert entry.rip == 0x200010
    assert machine.ram.read(0x200000, 150) == CODE + bytes(50)
    info = struct.unpack("<IIIIQQQQII", machine.ram.read(entry.gpr[RBX], 56))
    magic, version, flags, modules, modules_gpa, cmdline, rsdp, memory, count, _ = info
    assert (magic, version, flags, modules, rsdp) == (0x336EC578, 1, 0, 1, 0xF59E0)
    assert machine.string(cmdline) == b"quiet"
    gpa, size, _, _ = struct.unpack("<QQQQ", machine.ram.read(modules_gpa, 32))
    assert machine.ram.read(gpa, size) == b"init" * 100
    entries = [struct.unpack("<QQII", machine.ram.read(memory + 24 * index, 24)) for index in range(count)]
    assert entries == [(entry.base, entry.size, entry.type, 0) for entry in machine.map.entries]


def test_pvh_without_initrd(tmp_path: Path) -> None:
    machine = Machine()
    entry = boot(tmp_path, elf(CODE, bits=64, machine=X86_64, note=xen_note(0x100000)), machine)
    assert struct.unpack("<IQ", machine.ram.read(entry.gpr[RBX] + 12, 12)) == (0, 0)


# --- multiboot


def info_of(machine: Machine, entry: CpuEntry) -> dict[str, int]:
    names = ("flags", "lower", "upper", "device", "cmdline", "mods", "mods_gpa")
    info = dict(zip(names, struct.unpack("<7I", machine.ram.read(entry.gpr[RBX], 28)), strict=True))
    info["map_size"], info["map"] = struct.unpack("<II", machine.ram.read(entry.gpr[RBX] + 44, 8))
    (info["name"],) = struct.unpack("<I", machine.ram.read(entry.gpr[RBX] + 64, 4))
    return info


def test_multiboot_elf(tmp_path: Path) -> None:
    machine = Machine()
    code = multiboot_header(3) + CODE
    entry = boot(tmp_path, elf(code, entry=0x10000C), machine, "a b")
    assert_flat_protected_mode(machine, entry)
    assert entry.rip == 0x10000C and entry.gpr[RAX] == 0x2BADB002
    assert machine.ram.read(0x100000, len(code)) == code
    info = info_of(machine, entry)
    assert info["flags"] & 0x24F == 0x24F
    assert info["lower"] == 639 and info["upper"] == 63 * 1024 - 128
    assert machine.string(info["cmdline"]) == f"{tmp_path}/kernel a b".encode()
    assert machine.string(info["name"]) == b"tessera"
    assert info["mods"] == 0
    found, offset = [], 0
    while offset < info["map_size"]:
        size, base, length, kind = struct.unpack("<IQQI", machine.ram.read(info["map"] + offset, 24))
        found.append((base, length, kind))
        offset += size + 4
    assert found == [(entry.base, entry.size, entry.type) for entry in machine.map.entries]


def test_multiboot_addresses(tmp_path: Path) -> None:
    """The header's own addresses: load from before the header, BSS behind the file's end."""
    machine = Machine()
    machine.ram.write(0x300000, b"\xff" * 0x2000)
    header = multiboot_header(0x10000, 0x300010, 0x300000, 0x300100, 0x301000, 0x300044)
    image = (b"\xcc" * 4 + b"\xdd" * 16 + header + CODE).ljust(0x104, b"\xaa") + b"not loaded"
    entry = boot(tmp_path, image, machine)
    assert entry.rip == 0x300044
    assert machine.ram.read(0x300000, 0x100) == image[4:0x104]
    assert machine.ram.read(0x300100, 0xF00) == bytes(0xF00)
    assert machine.ram.read(0x301000, 1) == b"\xff"


def test_multiboot_modules(tmp_path: Path) -> None:
    machine = Machine()
    for name in "ab":
        (tmp_path / name).write_bytes(name.encode() * 5000)
    items = f"{tmp_path}/a one two,{tmp_path}/b"
    entry = boot(tmp_path, elf(multiboot_header(3) + CODE), machine, "", items)
    info = info_of(machine, entry)
    assert info["mods"] == 2
    ends = []
    for index, (name, text) in enumerate((("a", f"{tmp_path}/a one two"), ("b", f"{tmp_path}/b"))):
        start, end, string, _ = struct.unpack("<IIII", machine.ram.read(info["mods_gpa"] + 16 * index, 16))
        assert start % 4096 == 0 and machine.ram.read(start, end - start) == name.encode() * 5000
        assert machine.string(string) == text.encode()
        ends.append((start, end))
    assert ends[0][0] >= ends[1][1] or ends[1][0] >= ends[0][1]


def test_multiboot_comes_before_pvh_as_in_qemu(tmp_path: Path) -> None:
    machine = Machine()
    entry = boot(tmp_path, elf(multiboot_header(0) + CODE, note=xen_note(0x100050)), machine)
    assert entry.gpr[RAX] == 0x2BADB002


def test_a_64_bit_elf_with_both_goes_by_pvh(tmp_path: Path) -> None:
    machine = Machine()
    image = elf(multiboot_header(0) + CODE, bits=64, machine=X86_64, note=xen_note(0x100050))
    assert boot(tmp_path, image, machine).rip == 0x100050


# --- errors


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (elf(CODE, bits=64, machine=AARCH64), r"another architecture \(aarch64\)"),
        (elf(CODE, bits=64, machine=X86_64), "without a multiboot header or PVH note"),
        (elf(multiboot_header(0) + CODE, bits=64, machine=X86_64), "64-bit ELF image; convert it"),
        (elf(multiboot_header(0x8) + CODE), "requires features"),
        (multiboot_header(0) + CODE, "neither ELF nor"),
        (elf(CODE, note=xen_note(0x100000))[:-1], "truncated"),
        (elf(CODE, note=xen_note(0x100000))[:40], "damaged|truncated"),
        (elf(CODE, 0x20000, note=xen_note(0x20000)), "link it to 1 MiB or higher"),
        (elf(CODE, note=xen_note(0x100000), bss=80 * MIB), "use -m 82 or more"),
        (elf(CODE, 0xC0000000, note=xen_note(0xC0000000)), "is not in the guest's 64 MiB of RAM"),
        (elf(CODE, 0xC0000000 << 32, bits=64, machine=X86_64, note=xen_note(0x100000)), "link it elsewhere"),
        (multiboot_header(0x10000, 0x100000, 0x200000, 0, 0, 0) + CODE, "truncated or its header is damaged"),
        (multiboot_header(0x10000, 0x100000, 0x100000, 0x200000, 0, 0) + CODE, "truncated or its header is damaged"),
    ],
)
def test_bad_images(tmp_path: Path, image: bytes, message: str) -> None:
    with pytest.raises(BootError, match=message) as error:
        boot(tmp_path, image, Machine())
    assert str(error.value).startswith(f"{tmp_path}/kernel: ")


def test_module_that_does_not_fit(tmp_path: Path) -> None:
    (tmp_path / "initrd").write_bytes(bytes(70 * MIB))
    for image in (elf(multiboot_header(0) + CODE), elf(CODE, note=xen_note(0x100000))):
        with pytest.raises(BootError, match="do not fit beside the kernel"):
            boot(tmp_path, image, Machine(), "", str(tmp_path / "initrd"))


@pytest.mark.parametrize("seed", range(8))
def test_damaged_images_never_raise_anything_else(tmp_path: Path, seed: int) -> None:
    """Flip bytes in the headers of each kind of image: it boots or it is a BootError."""
    print(f"seed {seed}")
    generator = random.Random(seed)
    images = (
        bzimage(),
        elf(CODE, note=xen_note(0x100000), bss=100),
        elf(CODE, bits=64, machine=X86_64, note=xen_note(0x100000)),
        elf(multiboot_header(3) + CODE),
        multiboot_header(0x10000, 0x100000, 0x100000, 0, 0, 0x100020) + CODE,
    )
    machine = Machine(32)
    for _ in range(60):
        image = bytearray(generator.choice(images))
        for _ in range(generator.randint(1, 6)):
            limit = min(len(image), generator.choice((0x40, 0x80, 0x270)))
            image[generator.randrange(limit)] = generator.choice((0, 1, 0x7F, 0xFF, generator.randrange(256)))
        if generator.random() < 0.2:
            del image[generator.randrange(1, len(image)) :]
        try:
            boot(tmp_path, bytes(image), machine)
        except BootError as error:
            assert str(error)
