"""Page walks against hand-made tables: sizes, rights, error codes, accessed and dirty bits (SDM vol. 3, chapter 4)."""

import random

import pytest
from x86guest import NX, A, D, Fault, G, Guest, P, U, W

READ, WRITE, FETCH = 0, 1, 2
KERNEL, USER, KERNEL_AC = 0, 1, 2
SMEP, SMAP = 1 << 20, 1 << 21


@pytest.fixture
def guest() -> Guest:
    return Guest()


def fault_of(guest: Guest, gva: int, access: int, index: int) -> tuple[int, int] | None:
    try:
        guest.translate(gva, access, index)
    except Fault as fault:
        assert fault.args[2] & ((1 << 64) - 1) == gva
        return fault.vector, fault.error
    return None


@pytest.mark.parametrize(("level", "size"), [(1, 1 << 12), (2, 1 << 21), (3, 1 << 30)])
def test_page_sizes(guest: Guest, level: int, size: int) -> None:
    gva = 0xFFFF_8880_4000_0000
    guest.map(gva, 0x4000_0000, P | W, level)
    offset = size - 0x123
    assert guest.translate(gva + offset) == (0x4000_0000 + offset, 1 | 4, size)
    assert guest.translate(gva + offset, WRITE) == (0x4000_0000 + offset, 1 | 2 | 4, size)


def test_accessed_and_dirty(guest: Guest) -> None:
    at = guest.map(0x1000, 0x5000)
    upper = guest.read64(guest.root)
    assert not guest.read64(at) & (A | D) and not upper & A
    guest.translate(0x1000)
    assert guest.read64(at) & (A | D) == A
    assert guest.read64(guest.root) & A
    guest.translate(0x1000, WRITE)
    assert guest.read64(at) & (A | D) == A | D


def test_refused_access_marks_nothing(guest: Guest) -> None:
    at = guest.map(0x1000, 0x5000, P)
    assert fault_of(guest, 0x1000, WRITE, USER) == (14, 7)
    assert fault_of(guest, 0x1000, WRITE, KERNEL) == (14, 3)
    assert not guest.read64(at) & (A | D)
    assert not guest.read64(guest.root) & A


def test_not_present_and_error_code(guest: Guest) -> None:
    assert fault_of(guest, 0x7000, READ, KERNEL) == (14, 0)
    assert fault_of(guest, 0x7000, WRITE, KERNEL) == (14, 2)
    assert fault_of(guest, 0x7000, WRITE, USER) == (14, 6)
    assert fault_of(guest, 0x7000, FETCH, USER) == (14, 0x14)
    guest.set("efer", 0x501)  # NXE off: I/D is reported with SMEP only
    assert fault_of(guest, 0x7000, FETCH, USER) == (14, 4)
    guest.set("cr4", guest.get("cr4") | SMEP)
    assert fault_of(guest, 0x7000, FETCH, USER) == (14, 0x14)


def test_not_canonical(guest: Guest) -> None:
    assert fault_of(guest, 0x0000_8000_0000_0000, READ, KERNEL) == (13, 0)
    assert fault_of(guest, 0xFFFF_7FFF_FFFF_FFFF, READ, USER) == (13, 0)


def test_reserved_bits(guest: Guest) -> None:
    at = guest.map(0x1000, 0x5000)
    for bit in (40, 45, 51):
        guest.write64(at, 0x5000 | P | W | 1 << bit)
        assert fault_of(guest, 0x1000, READ, USER) == (14, 0xD)
    guest.write64(at, 0x5000 | P | W | 1 << 52)  # ignored
    assert fault_of(guest, 0x1000, READ, KERNEL) is None
    guest.set("efer", 0x501)
    guest.write64(at, 0x5000 | P | W | NX)
    assert fault_of(guest, 0x1000, READ, KERNEL) == (14, 9)
    large = guest.map(0x4000_0000, 0x20_0000, P | W, 2)
    guest.write64(large, guest.read64(large) | 1 << 13)
    assert fault_of(guest, 0x4000_0000, WRITE, KERNEL) == (14, 0xB)
    guest.write64(guest.root + 8, guest.new_table() | P | W | 0x80)  # PS in a PML4E
    assert fault_of(guest, 1 << 39, READ, KERNEL) == (14, 9)


def expected_rights(
    index: int, access: int, user: bool, write: bool, no_execute: bool, wp: bool, smep: bool, smap: bool
) -> bool:
    """SDM vol. 3, 4.6.1, said plainly."""
    if index == USER:
        if not user:
            return False
        return {READ: True, WRITE: write, FETCH: not no_execute}[access]
    if access == FETCH:
        return not no_execute and not (user and smep)
    if user and smap and index == KERNEL:
        return False
    return True if access == READ else write or not wp


def test_rights_everywhere(guest: Guest) -> None:
    """Every combination of the bits of one level and the controls; each level in turn is the restricting one."""
    cr0, cr4 = guest.get("cr0"), guest.get("cr4")
    guest.map(0x1000, 0x5000, P | W | U)
    entries = [guest.root]
    for _ in range(2):
        entries.append(guest.read64(entries[-1]) & 0xFFFFFFFFFF000)
    entries.append((guest.read64(entries[-1]) & 0xFFFFFFFFFF000) + 8)
    for place in entries:
        base = guest.read64(place) & 0xFFFFFFFFFF000
        for bits in range(64):
            user, write, no_execute, wp, smep, smap = (bool(bits >> n & 1) for n in range(6))
            guest.set("cr0", cr0 & ~0x10000 | wp << 16)
            guest.set("cr4", cr4 | smep << 20 | smap << 21)
            for index in (KERNEL, USER, KERNEL_AC):
                for access in (READ, WRITE, FETCH):
                    guest.write64(place, base | P | W * write | U * user | NX * no_execute)
                    allowed = expected_rights(index, access, user, write, no_execute, wp, smep, smap)
                    error = 1 | 2 * (access == WRITE) | 4 * (index == USER) | 16 * (access == FETCH)
                    expected = None if allowed else (14, error)
                    assert fault_of(guest, 0x1000, access, index) == expected, (place, bits, index, access)
        guest.write64(place, base | P | W | U)


def test_prot_is_what_later_accesses_may_do(guest: Guest) -> None:
    rng = random.Random(7)
    at = guest.map(0x1000, 0x5000, P | W | U)
    cr4 = guest.get("cr4")
    for _ in range(200):
        entry = 0x5000 | P | rng.getrandbits(2) << 1 | rng.getrandbits(2) << 5 | rng.getrandbits(1) << 63
        guest.set("cr4", cr4 | rng.getrandbits(2) << 20)
        index = rng.randrange(3)
        guest.write64(at, entry)
        if fault_of(guest, 0x1000, READ, index):
            continue
        prot = guest.cpu.get("walk_prot")
        for access in (READ, WRITE, FETCH):
            guest.write64(at, entry)
            allowed = fault_of(guest, 0x1000, access, index) is None
            if access == WRITE and not entry & D:
                assert not prot & 2
            else:
                assert bool(prot >> access & 1) == allowed


def test_global_bit(guest: Guest) -> None:
    guest.map(0x1000, 0x5000, P | W | G)
    assert guest.translate(0x1000)[1] & 8
    guest.set("cr4", guest.get("cr4") & ~0x80)
    assert not guest.translate(0x1000)[1] & 8


def legacy(guest: Guest, cr4: int) -> None:
    guest.set("efer", 0)
    guest.set("cr4", cr4)
    guest.set("cr3", guest.root)


def test_two_level_paging(guest: Guest) -> None:
    legacy(guest, 0x10)  # PSE
    directory, table = guest.root, guest.new_table()
    guest.write(directory + 4, (table | P | W | U).to_bytes(4, "little"))
    guest.write(table + 8, (0x9000 | P | W).to_bytes(4, "little"))
    assert guest.translate(0x40_2345) == (0x9345, 1 | 4, 4096)
    assert guest.translate(0x40_2345, WRITE) == (0x9345, 7, 4096)
    assert int.from_bytes(guest.read(table + 8, 4), "little") & (A | D) == A | D
    assert fault_of(guest, 0x40_2345, READ, USER) == (14, 5)
    assert fault_of(guest, 0x40_3000, WRITE, KERNEL) == (14, 2)
    guest.write(directory + 8, (0xC0_0000 | 0x80 | P | W | 5 << 13).to_bytes(4, "little"))
    assert guest.translate(0xABCDEF, WRITE) == ((5 << 32) | 0xEBCDEF, 7, 1 << 22)
    guest.write(directory + 8, (0xC0_0000 | 0x80 | P | W | 1 << 21).to_bytes(4, "little"))
    assert fault_of(guest, 0xABCDEF, READ, KERNEL) == (14, 9)


def test_pae_paging(guest: Guest) -> None:
    legacy(guest, 0x20)
    directory, table = guest.new_table(), guest.new_table()
    guest.write64(guest.root + 24, directory | P)
    guest.write64(directory + 8, table | P | W | U)
    guest.write64(table + 16, 0x9000 | P | W)
    gva = 3 << 30 | 1 << 21 | 2 << 12
    assert guest.translate(gva | 5, WRITE) == (0x9005, 7, 4096)
    guest.write64(directory + 16, 0xE0_0000 | 0x80 | P | W)
    assert guest.translate(3 << 30 | 2 << 21 | 0x1234) == (0xE0_1234, 5, 1 << 21)
    guest.write64(table + 16, 0x9000 | P | W | 1 << 52)  # reserved outside long mode
    assert fault_of(guest, gva, READ, KERNEL) == (14, 9)
    assert fault_of(guest, 1 << 30, READ, KERNEL) == (14, 0)


def test_paging_off(guest: Guest) -> None:
    legacy(guest, 0)
    guest.set("cr0", 0x11)
    assert guest.translate(0x1_2345_6789, WRITE) == (0x2345_6789, 7, 4096)


def test_tables_outside_ram_are_empty(guest: Guest) -> None:
    guest.set("cr3", 0xFE00_0000)
    assert fault_of(guest, 0x1000, READ, KERNEL) == (14, 0)
