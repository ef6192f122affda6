"""Host code of one stencil, cut into a hot part that falls through to the next instruction and a cold part.

LLVM's function is a row of *regions*, each ending in an unconditional jump. Regions that call a helper or leave the
block are cold (the first is always hot). The hot part ends with the region that jumps to @next, minus that jump, so
that blocks lie end to end. Jumps are laid anew: short where they stay inside a part, 32 bits (against COLD or HOT)
where they cross. Constants follow the cold code, at a multiple of 16 from the cold part's beginning.
"""

from dataclasses import dataclass, field

from tcg.exec.forms import Reloc, RelocKind, SymbolKind

_JMP8, _JMP32 = b"\xeb", b"\xe9"
_SECOND_REGION_LIMIT = 64  # bytes; a longer alternative path is better off out of line


@dataclass(frozen=True, slots=True)
class Fixup:
    """A relocation as the object file has it: a field at `offset` (in the function, later in its item)."""

    offset: int
    kind: RelocKind
    symbol: SymbolKind
    index: int = 0
    name: str = ""
    addend: int = 0


@dataclass(slots=True, eq=False)
class Item:
    """One host instruction. target: the function offset that an internal jump goes to."""

    at: int
    code: bytes
    fixups: list[Fixup] = field(default_factory=list)
    target: int | None = None
    ends: bool = False  # unconditional: control never reaches the following item
    long: bool = False  # an internal jump that needs 32 bits
    place: int = 0

    @property
    def size(self) -> int:
        if self.target is None:
            return len(self.code)
        return (5 if self.ends else 6) if self.long else 2

    def jumps_to(self, symbol: SymbolKind) -> bool:
        return self.ends and bool(self.fixups) and self.fixups[0].symbol is symbol


def make_items(code: bytes, boundaries: list[tuple[int, int, str, str]], fixups: list[Fixup]) -> list[Item]:
    """boundaries: (offset, size, mnemonic, operands) of every instruction, as capstone lists them."""
    items, pending = [], sorted(fixups, key=lambda f: f.offset)
    at = 0
    for offset, size, mnemonic, operands in boundaries:
        assert offset == at, f"host code not understood at {at:#x}: {code[at : at + 16].hex()}"
        at = offset + size
        item = Item(offset, code[offset:at])
        while pending and pending[0].offset < at:
            f = pending.pop(0)
            item.fixups.append(Fixup(f.offset - offset, f.kind, f.symbol, f.index, f.name, f.addend))
        item.ends = mnemonic in ("jmp", "ret", "ud2")
        if mnemonic[0] == "j" and not item.fixups and operands.startswith("0x"):
            item.target = int(operands, 16)
        items.append(item)
    assert at == len(code) and not pending, f"host code not understood at {at:#x}: {code[at : at + 16].hex()}"
    return items


def _regions(items: list[Item]) -> list[list[Item]]:
    regions: list[list[Item]] = [[]]
    for item in items:
        regions[-1].append(item)
        if item.ends:
            regions.append([])
    return [r for r in regions if r]


def _is_cold(region: list[Item]) -> bool:
    calls = any(f.symbol is SymbolKind.HELPER for item in region for f in item.fixups)
    return calls or region[-1].jumps_to(SymbolKind.LEAVE) or sum(i.size for i in region) > _SECOND_REGION_LIMIT


def _choose(regions: list[list[Item]]) -> tuple[list[list[Item]], list[list[Item]]]:
    """(hot, cold) regions, each in the order they are laid."""
    first, rest = regions[0], regions[1:]
    warm = [r for r in rest if not _is_cold(r)]
    falls = [r for r in warm if r[-1].jumps_to(SymbolKind.NEXT)]
    if falls:
        warm = [r for r in warm if r is not falls[-1]] + [falls[-1]]
    elif first[-1].jumps_to(SymbolKind.NEXT):
        warm = []
    kept = {id(r) for r in warm}
    return [first, *warm], [r for r in rest if id(r) not in kept]


def _lay(part: list[Item], end_of: dict[int, int]) -> bool:
    """Give every item its place; lengthen short jumps that do not reach. True when something moved."""
    at = 0
    for item in part:
        item.place = at
        end_of[item.at] = at
        at += item.size
    changed = False
    for item in part:
        if item.target is not None and not item.long:
            distance = end_of[item.target] - (item.place + 2)
            if not -128 <= distance <= 127:
                item.long = changed = True
    return changed


def _long_jump(item: Item) -> bytes:
    """The opcode of the 32-bit form; the displacement follows."""
    if item.ends:
        return _JMP32
    condition = item.code[0] if item.code[0] != 0x0F else item.code[1]
    return bytes((0x0F, 0x80 | (condition & 0x0F)))


def _short_jump(item: Item) -> bytes:
    if item.ends:
        return _JMP8
    condition = item.code[0] if item.code[0] != 0x0F else item.code[1]
    return bytes((0x70 | (condition & 0x0F),))


def split(items: list[Item], constants: bytes) -> tuple[bytes, int, tuple[Reloc, ...]]:
    """(code, hot size, relocations) of a stencil. A COLD fixup's addend counts from the start of `constants`."""
    hot_regions, cold_regions = _choose(_regions(items))
    hot = [item for region in hot_regions for item in region]
    cold = [item for region in cold_regions for item in region]
    elided = hot.pop() if hot[-1].jumps_to(SymbolKind.NEXT) else None
    in_hot = {item.at for item in hot} | ({elided.at} if elided else set())
    for item in (*hot, *cold):
        if item.target is not None:
            item.long = (item.at in in_hot) != (item.target in in_hot)
    places: dict[int, int] = {}
    changed = True
    while changed:
        changed = False
        for part in (hot, cold):
            if part is hot and elided:
                places[elided.at] = sum(item.size for item in hot)
            changed |= _lay(part, places)
        if elided:
            places[elided.at] = sum(item.size for item in hot)
    hot_size = sum(item.size for item in hot)
    cold_size = sum(item.size for item in cold)
    pool = -(-cold_size // 16) * 16 if constants else cold_size
    relocs: list[Reloc] = []
    code = bytearray()
    for base, part in ((0, hot), (hot_size, cold)):
        for item in part:
            _emit(item, part is hot, base, places, in_hot, relocs, code, pool)
    code += bytes(pool - cold_size if constants else 0) + constants
    return bytes(code), hot_size, tuple(relocs)


def _emit(
    item: Item,
    is_hot: bool,
    base: int,
    places: dict[int, int],
    in_hot: set[int],
    relocs: list[Reloc],
    code: bytearray,
    pool: int,
) -> None:
    at = base + item.place
    assert at == len(code)
    if item.target is None:
        code += item.code
        for f in item.fixups:
            addend = f.addend + (pool if f.symbol is SymbolKind.COLD else 0)
            relocs.append(Reloc(at + f.offset, f.kind, f.symbol, f.index, f.name, addend))
        return
    place = places[item.target]
    if (item.target in in_hot) != is_hot:
        symbol = SymbolKind.COLD if is_hot else SymbolKind.HOT
        code += _long_jump(item) + bytes(4)
        relocs.append(Reloc(len(code) - 4, RelocKind.REL32, symbol, addend=place - 4))
        return
    distance = place - (item.place + item.size)
    if item.long:
        code += _long_jump(item) + distance.to_bytes(4, "little", signed=True)
    else:
        code += _short_jump(item) + distance.to_bytes(1, "little", signed=True)
