"""Segment instructions on random descriptors, and page walks on random tables, beside Unicorn."""

import random

import pytest
import unicorn
from unicorn import x86_const as uc_x86
from x86guest import RAM_SIZE, A, D, Fault, G, Guest, P, U, W

from frontends.x86.state import Seg

GDT, CODE = 0x8000, 0x401000
LAR_LIMIT_BITS = 0xF0000  # undefined (SDM vol. 2, LAR); AMD64 vol. 3 leaves them in, as we do; Unicorn clears them


LOADS = (
    (Seg.DS, b"\x8e\xdb", uc_x86.UC_X86_REG_DS),
    (Seg.SS, b"\x8e\xd3", uc_x86.UC_X86_REG_SS),
    (Seg.FS, b"\x8e\xe3", uc_x86.UC_X86_REG_FS),
)


def machine() -> unicorn.Uc:
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    uc.ctl_set_cpu_model(uc_x86.UC_CPU_X86_SKYLAKE_CLIENT)  # one that has SMAP
    uc.mem_map(0, RAM_SIZE)
    return uc


def run(uc: unicorn.Uc, code: bytes) -> int | None:
    """Execute `code`; the vector of the exception it raises, or None."""
    vectors: list[int] = []

    def interrupt(uc: unicorn.Uc, vector: int, _data: object) -> None:
        vectors.append(vector)
        uc.emu_stop()

    hook = uc.hook_add(unicorn.UC_HOOK_INTR, interrupt)
    uc.mem_write(CODE, code)
    uc.emu_start(CODE, CODE + len(code))
    uc.hook_del(hook)
    return vectors[0] if vectors else None


def random_descriptor(rng: random.Random) -> int:
    """All types and levels; mostly present; L and D never both (Unicorn does not look)."""
    kind = rng.choice([rng.randrange(32), 16 | rng.randrange(16)])
    flags = rng.choice([0, 2, 4, 8, 10, 12])
    attr = (kind | rng.choice([0, 0, 1, 2, 3]) << 5 | (rng.random() < 0.85) << 7) | flags << 12
    low, high = rng.getrandbits(40), rng.getrandbits(8)
    return low | attr << 40 | rng.randrange(16) << 48 | high << 56


@pytest.mark.parametrize("seed", range(4))
def test_segment_instructions(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    guest = Guest()
    guest.identity(P | W)
    descriptors = [0] + [random_descriptor(rng) for _ in range(40)]
    uc = machine()
    uc.reg_write(uc_x86.UC_X86_REG_GDTR, (0, GDT, 8 * len(descriptors) - 1, 0))
    for _ in range(100):
        guest.set_gdt(*descriptors)
        guest.segment(Seg.CS, 0, 0, 0xFFFFFFFF, 0xA09B00)
        uc.mem_write(GDT, guest.read(GDT, 8 * len(descriptors)))
        selector = rng.randrange(1, len(descriptors) + 2) << 3 | rng.choice([0, 0, 0, 1, 3])
        descriptor = descriptors[selector >> 3] if selector >> 3 < len(descriptors) else 0
        for name, code in (("lar", b"\x0f\x02\xc3"), ("lsl", b"\x0f\x03\xc3"), ("verr", b"\x0f\x00\xe3"),
                           ("verw", b"\x0f\x00\xeb")):  # fmt: skip
            if name in ("lar", "lsl") and descriptor >> 40 & 31 in (1, 3, 4, 5):
                continue  # 16-bit TSSs and gates do not exist in long mode (SDM vol. 2, LAR); Unicorn takes them
            uc.reg_write(uc_x86.UC_X86_REG_RAX, 7)
            uc.reg_write(uc_x86.UC_X86_REG_RBX, selector)
            assert run(uc, code) is None
            ours = guest.helper(name, selector, 7) if name in ("lar", "lsl") else guest.helper(name, selector) * 0 + 7
            theirs = uc.reg_read(uc_x86.UC_X86_REG_RAX)
            mask = ~LAR_LIMIT_BITS if name == "lar" else -1
            where = f"{name} {selector:#x} {descriptor:#x}"
            assert ours & mask == theirs & mask, where
            zf = uc.reg_read(uc_x86.UC_X86_REG_EFLAGS) & 0x40
            assert guest.helper("compute_eflags") & 0x40 == zf, where
        for seg, code, register in LOADS:
            fresh = machine()  # after one fault Unicorn would make the next a double fault
            fresh.reg_write(uc_x86.UC_X86_REG_GDTR, (0, GDT, 8 * len(descriptors) - 1, 0))
            fresh.mem_write(GDT, guest.read(GDT, 8 * len(descriptors)))
            fresh.reg_write(uc_x86.UC_X86_REG_RBX, selector)
            theirs = run(fresh, code)
            try:
                guest.helper("load_seg", seg, selector)
                ours = None
            except Fault as fault:
                ours = fault.vector
            where = f"{seg.name} {selector:#x} {descriptor:#x}"
            assert ours == theirs, where
            if ours is None:
                assert fresh.reg_read(register) == guest.get("seg_selector", seg) == selector, where
            assert fresh.mem_read(GDT, 8 * len(descriptors)) == guest.read(GDT, 8 * len(descriptors)), where
            if seg == Seg.FS and ours is None:
                assert fresh.reg_read(uc_x86.UC_X86_REG_FS_BASE) == guest.get("seg_base", seg), where


# --- paging

TABLES, LEAVES = 0x100000, 0x200000
MOV_LOAD, MOV_STORE = b"\x48\x8b\x03", b"\x48\x89\x03"  # mov rax, [rbx]; mov [rbx], rax


def random_tables(rng: random.Random) -> tuple[int, list[tuple[int, int]], list[int]]:
    """A 4-level tree with random bits: root, (gpa, entry) writes, addresses worth trying."""
    place = iter(range(TABLES, TABLES + 0x80000, 4096))
    writes: list[tuple[int, int]] = []
    tried: list[int] = []

    def bits(leaf: bool) -> int:
        value = P if rng.random() < 0.93 else 0
        value |= W * (rng.random() < 0.75) | U * (rng.random() < 0.6)
        value |= rng.choice([0, A, A | D, D]) if leaf else rng.choice([0, A])
        value |= (rng.random() < 0.1) << 63
        if rng.random() < 0.04:
            value |= 1 << rng.choice([45, 51])  # above MAXPHYADDR on both
        return value | (G if leaf and rng.random() < 0.2 else 0)

    def fill(level: int, gva: int) -> int:
        table = next(place)
        for index in rng.sample(range(16), 2):
            address = gva | index << (3 + 9 * level)
            if level == 1 or (level == 2 and rng.random() < 0.3):
                entry = bits(True)
                if level == 1:
                    entry |= LEAVES + 4096 * rng.randrange(64)
                else:
                    entry |= 0x80 | rng.randrange(1, 4) << 21
                tried.append(address | rng.randrange(512) * 8 if level == 1 else address | rng.randrange(1 << 18) * 8)
            else:
                entry = fill(level - 1, address) | bits(False)
            writes.append((table + 8 * index, entry))
        tried.append(gva | 77 << (3 + 9 * level))
        return table

    return fill(4, 0), writes, tried


@pytest.mark.parametrize("seed", range(6))
def test_page_walks(seed: int) -> None:
    """Loads and stores at CPL 0: translation, fault and the accessed and dirty bits left in the tables."""
    print(f"seed {seed}")
    rng = random.Random(1000 + seed)
    root, writes, tried = random_tables(rng)
    # Code and its mapping: PML4 slot 256 on, one 2 MiB page
    writes += [(root + 8 * 256, 0xF0000 | P | W | A), (0xF0000, 0xF1000 | P | W | A), (0xF1000, 0x400000 | 0xE3)]
    code = 0xFFFF_8000_0000_1000
    wp, smap = rng.randrange(2), rng.randrange(2)
    guest = Guest()
    for _ in range(40):
        gva, store = rng.choice(tried), rng.randrange(2)
        uc = machine()
        for gpa, entry in writes:
            uc.mem_write(gpa, entry.to_bytes(8, "little"))
            guest.write64(gpa, entry)
        for page in range(LEAVES, LEAVES + 0x40000, 4096):
            uc.mem_write(page, page.to_bytes(8, "little") * 512)
            guest.write(page, page.to_bytes(8, "little") * 512)
        uc.mem_write(0x401000, MOV_STORE if store else MOV_LOAD)
        uc.reg_write(uc_x86.UC_X86_REG_CR3, root)
        uc.reg_write(uc_x86.UC_X86_REG_CR4, 0x2A0 | smap << 21)
        uc.msr_write(0xC0000080, 0xD00)
        uc.reg_write(uc_x86.UC_X86_REG_CR0, 0x80000023 | wp << 16)
        guest.set("cr3", root)
        guest.set("cr4", 0x2A0 | smap << 21)
        guest.set("efer", 0xD00)
        guest.set("cr0", 0x80000023 | wp << 16)
        guest.update()
        uc.reg_write(uc_x86.UC_X86_REG_RBX, gva)
        uc.reg_write(uc_x86.UC_X86_REG_RAX, 0x1122334455667788)
        vectors: list[int] = []

        def interrupt(uc: unicorn.Uc, vector: int, vectors: list[int]) -> None:
            vectors.append(vector)
            uc.emu_stop()

        uc.hook_add(unicorn.UC_HOOK_INTR, interrupt, vectors)
        try:
            uc.emu_start(code, code + 3, count=1)
        except unicorn.UcError as error:
            pytest.fail(f"Unicorn: {error}")
        try:
            gpa, _, _ = guest.translate(gva, store)
            ours = None
        except Fault as fault:
            ours = fault.vector
        where = f"gva {gva:#x} store {store} wp {wp} smap {smap}"
        assert ours == (vectors[0] if vectors else None), where
        for place, entry in writes:
            # A walk that faults changes nothing here; Unicorn has marked the upper entries by then (both are allowed).
            theirs = int.from_bytes(uc.mem_read(place, 8), "little") if ours is None else entry
            if place >= root and (place, entry) not in writes[-3:]:
                assert guest.read64(place) == theirs, f"{where} entry at {place:#x}"
        if ours is None:
            if store:
                assert bytes(uc.mem_read(gpa, 8)) == (0x1122334455667788).to_bytes(8, "little"), where
            else:
                assert uc.reg_read(uc_x86.UC_X86_REG_RAX) == guest.read64(gpa), where
        else:
            assert uc.reg_read(uc_x86.UC_X86_REG_CR2) == gva, where
