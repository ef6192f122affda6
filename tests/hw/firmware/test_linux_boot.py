"""The Linux 64-bit boot protocol, with hand-made images (Documentation/arch/x86/boot.rst)."""

import struct
from pathlib import Path

import pytest
from images import MIB, Machine, bzimage

from hw.firmware import BootError, CpuEntry, load_kernel
from hw.firmware.cpu_entry import GPR_NAMES

RSI = GPR_NAMES.index("rsi")


def boot(tmp_path: Path, image: bytes, machine: Machine, *, initrd: bytes | None = None, **options: object) -> CpuEntry:
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(image)
    initrd_path = None
    if initrd is not None:
        initrd_path = tmp_path / "initrd"
        initrd_path.write_bytes(initrd)
    cmdline = options.pop("cmdline", "console=ttyS0")
    return load_kernel(kernel, initrd_path, cmdline, machine.ram, machine.map, **options)  # type: ignore[arg-type]


def zero_page(machine: Machine, entry: CpuEntry) -> bytes:
    return machine.ram.read(entry.gpr[RSI], 4096)


def test_state_at_the_64_bit_entry(tmp_path: Path) -> None:
    machine = Machine()
    entry = boot(tmp_path, bzimage(), machine)
    assert entry.rip == 0x1000000 + 0x200
    assert entry.long_mode and entry.cr0 & 0x80000001 == 0x80000001 and entry.cr4 & 0x20
    assert entry.rflags == 2
    assert (entry.cs.selector, entry.ds.selector, entry.es.selector, entry.ss.selector) == (0x10, 0x18, 0x18, 0x18)
    assert entry.cs.attr >> 13 & 1 and not entry.cs.attr >> 14 & 1
    # The descriptors in the table are those in the registers.
    gdt = machine.ram.read(entry.gdtr.base, entry.gdtr.limit + 1)
    assert gdt[0x10:0x18] == entry.cs.descriptor() == bytes.fromhex("ffff0000009baf00")
    assert gdt[0x18:0x20] == entry.ss.descriptor() == bytes.fromhex("ffff00000093cf00")


def test_page_tables_map_4_gib_onto_itself(tmp_path: Path) -> None:
    machine = Machine()
    entry = boot(tmp_path, bzimage(), machine)

    def qword(gpa: int) -> int:
        return int.from_bytes(machine.ram.read(gpa, 8), "little")

    for gva in (0, 0x1FFFFF, 0x200000, 0x1000200, 0x3FFFFFFF, 0x40000000, 0xFEE00000, 0xFFFFFFFF):
        pdpt = qword(entry.cr3)
        directory = qword((pdpt & ~0xFFF) + (gva >> 30) * 8)
        page = qword((directory & ~0xFFF) + (gva >> 21 & 511) * 8)
        assert pdpt & 3 == directory & 3 == 3 and page & 0x83 == 0x83
        assert (page & ~0x1FFFFF) == gva & ~0x1FFFFF
    pdpt_gpa = qword(entry.cr3) & ~0xFFF
    assert qword(entry.cr3 + 8) == 0 and qword(pdpt_gpa + 4 * 8) == 0


def test_zero_page(tmp_path: Path) -> None:
    machine = Machine()
    image = bzimage()
    entry = boot(tmp_path, image, machine, cmdline="root=/dev/sda ü", rsdp=0xF5000)
    page = zero_page(machine, entry)
    assert page[0x202:0x210] == image[0x202:0x210]
    assert page[0x210] == 0xB0
    assert page[0x1EF] == 0, "the sentinel must be clear"
    assert page[:0x70] == bytes(0x70), "no screen"
    assert struct.unpack_from("<Q", page, 0x70) == (0xF5000,)
    (command_line,) = struct.unpack_from("<I", page, 0x228)
    assert machine.string(command_line) == "root=/dev/sda ü".encode()
    assert struct.unpack_from("<II", page, 0x218) == (0, 0)
    assert struct.unpack_from("<Q", page, 0x250) == (0,)
    entries = [struct.unpack_from("<QQI", page, 0x2D0 + 20 * index) for index in range(page[0x1E8])]
    assert entries == [(entry.base, entry.size, entry.type) for entry in machine.map.entries]


def test_nothing_overlaps(tmp_path: Path) -> None:
    """All that is written to conventional memory stays apart and below the EBDA."""
    machine = Machine()
    entry = boot(tmp_path, bzimage(cmdline_size=4000), machine, cmdline="x" * 4000, rng_seed=b"s" * 32)
    page = zero_page(machine, entry)
    (command_line,) = struct.unpack_from("<I", page, 0x228)
    (setup_data,) = struct.unpack_from("<Q", page, 0x250)
    ranges = sorted(
        [
            (entry.gdtr.base, entry.gdtr.limit + 1),
            (entry.cr3, 6 * 4096),
            (entry.gpr[RSI], 4096),
            (command_line, 4001),
            (setup_data, 16 + 32),
        ]
    )
    for (gpa, size), (following, _) in zip(ranges, [*ranges[1:], (0x9FC00, 0)], strict=True):
        assert gpa >= 0x1000 and gpa + size <= following
    assert machine.ram.read(setup_data, 48) == struct.pack("<QII", 0, 9, 32) + b"s" * 32
    assert machine.string(command_line) == b"x" * 4000


def test_payload_goes_to_the_preferred_address(tmp_path: Path) -> None:
    machine = Machine()
    payload = bytes(range(256)) * 16
    boot(tmp_path, bzimage(payload), machine)
    assert machine.ram.read(0x1000000, len(payload)) == payload
    machine = Machine()
    entry = boot(tmp_path, bzimage(payload, relocatable=0), machine)
    assert entry.rip == 0x100200
    assert machine.ram.read(0x100000, len(payload)) == payload


def test_what_follows_the_payload_is_not_loaded(tmp_path: Path) -> None:
    """A signed kernel has its signature behind the payload."""
    machine = Machine()
    boot(tmp_path, bzimage(b"\x90" * 0x400) + b"signature", machine)
    assert machine.ram.read(0x1000000 + 0x400, 9) == bytes(9)


@pytest.mark.parametrize("size", [1, 4096, 5 * MIB + 1])
def test_initrd_goes_to_the_top(tmp_path: Path, size: int) -> None:
    machine = Machine()
    data = bytes([7]) * size
    entry = boot(tmp_path, bzimage(), machine, initrd=data)
    gpa, length = struct.unpack_from("<II", zero_page(machine, entry), 0x218)
    assert length == size and machine.ram.read(gpa, size) == data
    assert gpa % 4096 == 0 and machine.map.tables_base - 4096 < gpa + size <= machine.map.tables_base


def test_initrd_honours_its_limit(tmp_path: Path) -> None:
    machine = Machine()
    entry = boot(tmp_path, bzimage(initrd_addr_max=0x1FFFFFF), machine, initrd=b"i" * 5000)
    assert struct.unpack_from("<II", zero_page(machine, entry), 0x218) == (0x2000000 - 0x2000, 5000)


def test_loading_twice_gives_the_same_memory(tmp_path: Path) -> None:
    """A machine reset loads the kernel again, over whatever the guest left."""
    first, second = Machine(), Machine()
    for _ in range(2):
        entry = boot(tmp_path, bzimage(), second, initrd=b"i" * 100)
        second.ram.write(entry.rip, b"guest was here")
    again = boot(tmp_path, bzimage(), second, initrd=b"i" * 100)
    assert boot(tmp_path, bzimage(), first, initrd=b"i" * 100) == again
    assert first.buffer == second.buffer


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (bzimage()[:-1], "truncated: 2047 bytes of 2048"),
        (bzimage()[:0x220], "truncated inside its setup header"),
        (bzimage(boot_flag=0), "damaged"),
        (bzimage(version=0x0204), "boot protocol 2.04 is too old"),
        (bzimage(xloadflags=0), "32-bit x86 kernel without a 64-bit entry"),
        (bzimage(loadflags=0), "zImage"),
        (bzimage(b""), "damaged"),
        (bzimage(pref_address=0x1000), "damaged"),
        (bzimage(pref_address=1 << 40), "damaged"),
        (bzimage(init_size=60 * MIB), "needs 77 MiB of RAM to start and the guest has 64; use -m 77 or more"),
    ],
)
def test_bad_images(tmp_path: Path, image: bytes, message: str) -> None:
    with pytest.raises(BootError) as error:
        boot(tmp_path, image, Machine())
    assert message in str(error.value)
    assert str(error.value).startswith(f"{tmp_path}/vmlinuz: ")


def test_command_line_that_is_too_long(tmp_path: Path) -> None:
    boot(tmp_path, bzimage(), Machine(), cmdline="x" * 255)
    with pytest.raises(BootError, match="256 bytes and this kernel takes 255; shorten -append"):
        boot(tmp_path, bzimage(), Machine(), cmdline="x" * 256)
    with pytest.raises(BootError, match="shorten the command line"):
        boot(tmp_path, bzimage(cmdline_size=1 << 20), Machine(), cmdline="x" * 0x90000)
    with pytest.raises(BootError, match="NUL"):
        boot(tmp_path, bzimage(), Machine(), cmdline="a\0b")


def test_initrd_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(BootError, match=r"initrd: 60\.0 MiB do not fit .* use -m 85 or more"):
        boot(tmp_path, bzimage(), Machine(), initrd=bytes(60 * MIB))
    # The advice is right.
    boot(tmp_path, bzimage(), Machine(85), initrd=bytes(60 * MIB))
    with pytest.raises(BootError, match="it must end below 0x2000000, so use a smaller file"):
        boot(tmp_path, bzimage(initrd_addr_max=0x1FFFFFF), Machine(), initrd=bytes(20 * MIB))


def test_the_advised_memory_is_enough(tmp_path: Path) -> None:
    boot(tmp_path, bzimage(init_size=60 * MIB), Machine(77))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    machine = Machine()
    with pytest.raises(BootError, match="no such file; check -kernel"):
        load_kernel(tmp_path / "nothing", None, "", machine.ram, machine.map)
    with pytest.raises(BootError, match="is a directory"):
        load_kernel(tmp_path, None, "", machine.ram, machine.map)
    (tmp_path / "vmlinuz").write_bytes(bzimage())
    with pytest.raises(BootError, match="no such file; check -initrd"):
        load_kernel(tmp_path / "vmlinuz", tmp_path / "nothing", "", machine.ram, machine.map)
    (tmp_path / "empty").write_bytes(b"")
    for kernel, initrd, option in (("empty", None, "-kernel"), ("vmlinuz", tmp_path / "empty", "-initrd")):
        with pytest.raises(BootError, match=f"empty; check {option}"):
            load_kernel(tmp_path / kernel, initrd, "", machine.ram, machine.map)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (bytes(0x38) + b"ARM\x64" + bytes(100), "aarch64 kernel Image"),
        (bytes(0x38) + b"RSC\x05" + bytes(100), "RISC-V"),
        (b"\x1f\x8b\x08" + bytes(100), "unpack it with gzip"),
        (b"hello, world\n" * 10, "not a kernel that can be booted"),
        (b"\0", "not a kernel that can be booted"),
    ],
)
def test_other_files(tmp_path: Path, image: bytes, message: str) -> None:
    with pytest.raises(BootError, match=message):
        boot(tmp_path, image, Machine())
