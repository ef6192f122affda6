"""`-kernel`: recognise the image, start it by the protocol it offers. Read this module first.

The order is QEMU's: a Linux setup header, a multiboot header, an ELF image with a PVH note.
"""

from pathlib import Path

from hw.firmware.cpu_entry import CpuEntry
from hw.firmware.e820 import MemoryMap
from hw.firmware.elf import ELF_MAGIC, load_pvh, parse_elf
from hw.firmware.errors import BootError
from hw.firmware.files import encode_command_line, read_file
from hw.firmware.linux import is_bzimage, load_linux
from hw.firmware.module import Module
from hw.firmware.multiboot import ADDRESSES_VALID, find_header, load_multiboot
from hw.firmware.q35 import RSDP_GPA
from hw.firmware.ram import GuestRam

_FOREIGN_IMAGES = (
    (0x38, b"ARM\x64", "an aarch64 kernel Image"),
    (0x38, b"RSC\x05", "a RISC-V kernel Image"),
    (0x24, b"\x18\x28\x6f\x01", "a 32-bit ARM zImage"),
    (0x00, b"\x27\x05\x19\x56", "a U-Boot image"),
)
_COMPRESSED = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"BZh", "bzip2"),
    (b"\x04\x22\x4d\x18", "lz4"),
)


def load_kernel(
    kernel: Path,
    initrd: Path | None,
    cmdline: str,
    ram: GuestRam,
    map: MemoryMap,
    *,
    rsdp: int = RSDP_GPA,
    rng_seed: bytes = b"",
) -> CpuEntry:
    """Write `kernel`, `initrd` and what they need into `ram`; returns the state to start the first vCPU in.

    `rsdp` is where `install_q35_tables` put the ACPI root pointer, 0 for none. For a multiboot kernel `initrd` may be
    QEMU's list "file arguments,file arguments". Raises `BootError`, whose text is for the user.
    """
    data = read_file(kernel, "-kernel")
    command_line = encode_command_line(cmdline)
    if is_bzimage(data):
        return load_linux(kernel, data, _initrd(initrd), command_line, ram, map, rsdp=rsdp, rng_seed=rng_seed)
    header = find_header(data)
    image = parse_elf(kernel, data) if data.startswith(ELF_MAGIC) else None
    by_pvh = image is not None and image.pvh_entry is not None
    if header is not None and (header.flags & ADDRESSES_VALID or not by_pvh or (image and image.bits == 32)):
        return load_multiboot(kernel, data, header, _modules(initrd), command_line, ram, map)
    if image is not None and by_pvh:
        return load_pvh(kernel, image, _initrd(initrd), command_line, ram, map, rsdp=rsdp)
    raise BootError(f"{kernel}: {_refusal(data)}")


def _initrd(path: Path | None) -> Module | None:
    return None if path is None else Module(path, read_file(path, "-initrd"))


def _modules(initrd: Path | None) -> list[Module]:
    """The modules of a multiboot kernel: their command line is the whole item, as QEMU passes it."""
    modules = []
    for item in str(initrd).split(",") if initrd is not None else []:
        path = Path(item.lstrip().split(" ", 1)[0])
        modules.append(Module(path, read_file(path, "-initrd"), encode_command_line(item.lstrip())))
    return modules


def _refusal(data: bytes) -> str:
    """Why an unrecognised image is refused, and what to do."""
    if data.startswith(ELF_MAGIC):
        return "an ELF image without a multiboot header or PVH note; use a kernel with CONFIG_PVH, or its bzImage"
    for offset, magic, what in _FOREIGN_IMAGES:
        if data[offset : offset + len(magic)] == magic:
            return f"this is {what}, for another architecture or loader; use an x86-64 bzImage"
    for magic, tool in _COMPRESSED:
        if data.startswith(magic):
            return f"this file is compressed; unpack it with {tool} first"
    return "not a kernel that can be booted (no Linux setup header, multiboot header or PVH note); check -kernel"
