"""Guest memory as a debugger reads it: page tables walked without a trace, so no fault, no accessed bit, no TLB entry.

Intel SDM volume 3, chapter 4. Reads RAM and ROM only: a device register could change by being read.
"""

from collections.abc import Callable

from frontends.x86.state import Mode, Reg
from tcg.runtime.struct import View

ReadPhysical = Callable[[int, int], bytes | None]  # gpa, length -> bytes, or None where no RAM is
PAGE = 4096
_PG, _PAE, _PSE, _LMA = 1 << 31, 1 << 5, 1 << 4, 1 << 10
_PRESENT, _LARGE = 1, 1 << 7
_FRAME = 0x000F_FFFF_FFFF_F000


def translate(env: View, read: ReadPhysical, gva: int) -> int | None:
    """gpa of `gva` in the vCPU's present address space, or None."""
    if not env.get("cr0") & _PG:
        return gva & 0xFFFF_FFFF
    cr3, cr4 = env.get("cr3"), env.get("cr4")
    if env.get("efer") & _LMA:
        if gva >> 47 not in (0, 0x1FFFF):
            return None
        return _walk(read, cr3 & _FRAME, gva, (39, 30, 21, 12), 8)
    if cr4 & _PAE:
        entry = _entry(read, (cr3 & 0xFFFF_FFE0) + 8 * (gva >> 30 & 3), 8)
        if entry is None or not entry & _PRESENT:
            return None
        return _walk(read, entry & _FRAME, gva, (21, 12), 8)
    return _walk(read, cr3 & 0xFFFF_F000, gva, (22, 12), 4, large=bool(cr4 & _PSE))


def _walk(
    read: ReadPhysical, table: int, gva: int, shifts: tuple[int, ...], size: int, *, large: bool = True
) -> int | None:
    index_mask = PAGE // size - 1
    for shift in shifts:
        entry = _entry(read, table + size * (gva >> shift & index_mask), size)
        if entry is None or not entry & _PRESENT:
            return None
        offset = (1 << shift) - 1
        if shift == shifts[-1] or (entry & _LARGE and shift < 39 and large):
            if size == 4 and shift == 22:  # PSE-36: bits 20:13 of the entry are bits 39:32 of the frame
                return (entry & 0xFFC0_0000) | (entry >> 13 & 0xFF) << 32 | gva & offset
            return (entry & _FRAME & ~offset) | gva & offset
        table = entry & _FRAME
    return None


def _entry(read: ReadPhysical, gpa: int, size: int) -> int | None:
    data = read(gpa, size)
    return None if data is None else int.from_bytes(data, "little")


def read_virtual(env: View, read: ReadPhysical, gva: int, length: int) -> bytes:
    """As many bytes from `gva` on as are mapped to RAM, at most `length`."""
    data = bytearray()
    while len(data) < length:
        at = (gva + len(data)) & (1 << 64) - 1
        count = min(length - len(data), PAGE - at % PAGE)
        gpa = translate(env, read, at)
        part = None if gpa is None else read(gpa, count)
        if part is None:
            break
        data += part
    return bytes(data)


def register(env: View, name: str) -> int | None:
    """The value of a register by the name a monitor's user gives it, without `$`."""
    name = name.lower()
    if name in ("rip", "eip", "pc"):
        return env.get("pc")
    if name in ("cr0", "cr2", "cr3", "cr4", "efer"):
        return env.get(name)
    if name.startswith("e") and f"R{name[1:].upper()}" in Reg.__members__ and not name[1:].isdigit():
        return env.get("regs", Reg[f"R{name[1:].upper()}"]) & 0xFFFF_FFFF
    if name.upper() in Reg.__members__:
        return env.get("regs", Reg[name.upper()])
    return None


def code_bits(env: View) -> int:
    """64, 32 or 16: how the code at the pc is decoded."""
    mode = env.get("mode")
    return 64 if mode & Mode.CODE64 else 32 if mode & Mode.CODE32 else 16
