"""Identity page tables for a kernel that is entered in long mode (Intel SDM vol. 3, section 4.5)."""

from hw.firmware.ram import GuestRam

PRESENT, WRITE, LARGE = 1 << 0, 1 << 1, 1 << 7
PAGE_2M = 1 << 21
TABLE = 0x1000
GIB = 1 << 30

SIZE = 6 * TABLE
"""Room for `write_identity_map`: one PML4, one PDPT, four page directories."""


def write_identity_map(ram: GuestRam, gpa: int) -> int:
    """Map the first 4 GiB onto themselves in 2 MiB pages, with tables of `SIZE` bytes at `gpa`; returns cr3.

    2 MiB pages, as 1 GiB pages are optional in the architecture (CPUID 8000_0001h EDX bit 26).
    """
    directories = range(gpa + 2 * TABLE, gpa + SIZE, TABLE)
    pml4 = [gpa + TABLE | PRESENT | WRITE]
    pdpt = [directory | PRESENT | WRITE for directory in directories]
    pages = [base | PRESENT | WRITE | LARGE for base in range(0, len(directories) * GIB, PAGE_2M)]
    for table, entries in ((gpa, pml4), (gpa + TABLE, pdpt), (gpa + 2 * TABLE, pages)):
        size = -(-len(entries) * 8 // TABLE) * TABLE
        ram.write(table, b"".join(entry.to_bytes(8, "little") for entry in entries).ljust(size, b"\0"))
    return gpa
