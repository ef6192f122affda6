"""A guest without translator: RAM, env, TLBs and the compiled x86 helpers, for tests that call helpers one by one."""

import ctypes
import mmap
from collections.abc import Callable

import tcg.runtime.build as builder
from frontends.x86.helpers import HOOKS, MODULES, SOURCES
from frontends.x86.state import STATE, Mode, Seg
from tcg.runtime import layout
from tcg.runtime.layout import CPU, JC_BYTES, MACHINE, N_JUMP_CACHES, N_TLBS, PAGE, RAM_RANGE, TLB_BYTES
from tcg.runtime.native import NATIVE
from tcg.runtime.object import Runtime, cache_directory, pack, source_key, unpack, write_atomic
from tcg.runtime.registry import Recipe
from tcg.runtime.struct import View

RAM_SIZE = 16 << 20
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 5)
RECIPE = Recipe(MODULES, HOOKS, "backends.llvm.gates", SOURCES)
CORE = tuple(f"tcg.runtime.{name}" for name in ("memory", "lock", "hooks", "tlb", "qht", "blocks", "access"))
M64 = (1 << 64) - 1

P, W, U, A, D, PS, G, NX = 1, 2, 4, 0x20, 0x40, 0x80, 0x100, 1 << 63


def load_runtime() -> Runtime:
    """The helpers and what they need, compiled; cached by their sources."""
    builder.import_modules(RECIPE, CORE)
    roots = [f.symbol for f in NATIVE.values() if f.function.__module__ in MODULES and f.kind == "exported"]
    roots += ["cpu_init", "tlb_flush_all", "tlb_probe", "ram_hva"]
    path = cache_directory() / f"test-x86-helpers-{source_key(RECIPE)}.o"
    found = unpack(path.read_bytes()) if path.exists() else None
    if found is None:
        code = builder.compile_object(RECIPE, None, 1, roots, CORE)
        data = pack(code, roots)
        for old in path.parent.glob("test-x86-helpers-*.o"):
            old.unlink()
        write_atomic(path, data)
        found = unpack(data)
        assert found is not None
    return Runtime(*found)


class Fault(Exception):
    """A guest exception left by a helper: (vector, error code, gva)."""

    @property
    def vector(self) -> int:
        return int(self.args[0])

    @property
    def error(self) -> int:
        return int(self.args[1])


class Guest:
    """64-bit supervisor state over an empty identity-less address space, until a test says otherwise."""

    _runtime: Runtime | None = None

    def __init__(self) -> None:
        if Guest._runtime is None:
            Guest._runtime = load_runtime()
        self.runtime = Guest._runtime
        self._keep: list[object] = []
        self.ram_hva = self.allocate(RAM_SIZE)
        self.env = self.allocate(layout.ENV_LIMIT)
        self.state = View(STATE, self.env)
        self.cpu = View(CPU, self.allocate(CPU.size))
        self.machine = View(MACHINE, self.allocate(MACHINE.size))
        ram_range = View(RAM_RANGE, self.allocate(4096))
        ram_range.set("size", RAM_SIZE)
        ram_range.set("hva", self.ram_hva)
        self.machine.set("ranges", ram_range.address)
        self.machine.set("range_count", 1)
        self.machine.set("pages", self.allocate(PAGE.size * (RAM_SIZE >> 12)))
        self.machine.set("page_count", RAM_SIZE >> 12)
        self.cpu.set("machine", self.machine.address)
        self.cpu.set("env", self.env)
        self.state.set("cpu", self.cpu.address)
        self.callbacks: dict[int, Callable[[int, int, int], int]] = {}
        self.asked: list[tuple[int, int, int, int]] = []
        self._callback = CALLBACK(self._answer)
        self.cpu.set("callback", ctypes.cast(self._callback, ctypes.c_void_p).value or 0)
        self.runtime.call(
            "cpu_init", self.cpu.address, self.allocate(N_TLBS * TLB_BYTES), self.allocate(N_JUMP_CACHES * JC_BYTES)
        )
        self._next_table = 0x100000
        self.root = self.new_table()
        self.gdt: list[int] = []
        self.long_mode()

    def allocate(self, size: int) -> int:
        """Zeroed page-aligned memory; its hva."""
        area = mmap.mmap(-1, (size + 4095) & -4096)
        self._keep.append(area)
        anchor = ctypes.c_char.from_buffer(area)
        self._keep.append(anchor)
        return ctypes.addressof(anchor)

    def _answer(self, kind: int, _env: int, a: int, b: int, c: int) -> int:
        self.asked.append((kind, a, b, c))
        handler = self.callbacks.get(kind)
        return handler(a, b, c) if handler else 0

    def set(self, name: str, value: int, index: int = 0) -> None:
        self.state.set(name, value, index)

    def get(self, name: str, index: int = 0) -> int:
        return self.state.get(name, index)

    def write(self, gpa: int, data: bytes) -> None:
        ctypes.memmove(self.ram_hva + gpa, data, len(data))

    def read(self, gpa: int, size: int) -> bytes:
        return ctypes.string_at(self.ram_hva + gpa, size)

    def read64(self, gpa: int) -> int:
        return int.from_bytes(self.read(gpa, 8), "little")

    def write64(self, gpa: int, value: int) -> None:
        self.write(gpa, (value & M64).to_bytes(8, "little"))

    def call(self, symbol: str, *args: int) -> int:
        """Call helper or hook `symbol` with env; a guest exception it leaves is raised as Fault."""
        result = self.runtime.call(symbol, self.env, *args)
        if self.get("exception") and self.get("exit_reason") == layout.ExitReason.EXCEPTION:
            self.set("exception", 0)
            raise Fault(self.get("exception_index"), self.get("error_code"), self.get("fault_gva"))
        return result

    def helper(self, name: str, *args: int) -> int:
        return self.call(f"helper_x86_{name}", *args)

    # --- paging

    def new_table(self) -> int:
        gpa = self._next_table
        self._next_table += 4096
        return gpa

    def map(self, gva: int, gpa: int, flags: int = P | W, level: int = 1, upper: int = P | W | U) -> int:
        """Map one page (level 1: 4 KiB, 2: 2 MiB, 3: 1 GiB) in the 4-level tables; the gpa of its entry."""
        table = self.root
        for n in range(4, level, -1):
            at = table + 8 * ((gva >> (3 + 9 * n)) & 511)
            entry = self.read64(at)
            if not entry & P:
                entry = self.new_table() | upper
                self.write64(at, entry)
            table = entry & 0xFFFFFFFFFF000
        at = table + 8 * ((gva >> (3 + 9 * level)) & 511)
        self.write64(at, gpa | flags | (PS if level > 1 else 0))
        return at

    def identity(self, flags: int = P | W) -> None:
        """Map all RAM at its physical address by 2 MiB pages."""
        for gva in range(0, RAM_SIZE, 2 << 20):
            self.map(gva, gva, flags, 2)

    def translate(self, gva: int, access: int = 0, mmu_index: int = 0) -> tuple[int, int, int]:
        """(gpa, prot, size) of a page walk."""
        self.call("x86_translate", gva, access, mmu_index)
        return self.cpu.get("walk_gpa"), self.cpu.get("walk_prot"), self.cpu.get("walk_size")

    # --- modes and segments

    def long_mode(self) -> None:
        self.set("cr0", 0x80050033)
        self.set("cr3", self.root)
        self.set("cr4", 0x6A0)  # PAE PGE OSFXSR OSXMMEXCPT
        self.set("efer", 0xD01)  # SCE LME LMA NXE
        self.set("eflags", 2)
        self.set("df", 1)
        self.set("cc_op", 1)
        self.set("mxcsr", 0x1F80)
        self.set("fpu_control", 0x37F)
        self.segment(Seg.CS, 0x10, 0, 0xFFFFFFFF, 0xA09B00)
        for seg in (Seg.DS, Seg.ES, Seg.SS):
            self.segment(seg, 0x18, 0, 0xFFFFFFFF, 0xC09300)
        self.update()

    def segment(self, seg: int, selector: int, base: int, limit: int, attr: int) -> None:
        self.set("seg_selector", selector, seg)
        self.set("seg_base", base, seg)
        self.set("seg_limit", limit, seg)
        self.set("seg_attr", attr, seg)

    def update(self) -> None:
        self.call("x86_update_mode")
        self.call("x86_reset_contexts")

    def set_gdt(self, *descriptors: int, gpa: int = 0x8000) -> None:
        for n, descriptor in enumerate(descriptors):
            self.write64(gpa + 8 * n, descriptor)
        self.set("gdt_base", gpa)
        self.set("gdt_limit", 8 * len(descriptors) - 1)

    def mode(self) -> Mode:
        return Mode(self.get("mode"))


def descriptor(base: int, limit: int, attr: int) -> int:
    """8 bytes of a descriptor; attr: SegAttr bits in place, limit as encoded (20 bits)."""
    low = limit & 0xFFFF | (base & 0xFFFF) << 16
    high = (base >> 16) & 0xFF | attr | limit & 0xF0000 | base & 0xFF000000
    return high << 32 | low


def gate64(selector: int, target: int, kind: int = 14, dpl: int = 0, ist: int = 0, present: int = 1) -> bytes:
    """16 bytes of a 64-bit interrupt (14) or trap (15) gate."""
    low = target & 0xFFFF | selector << 16 | ist << 32 | (kind | dpl << 5 | present << 7) << 40
    low |= (target >> 16 & 0xFFFF) << 48
    return low.to_bytes(8, "little") + (target >> 32 & 0xFFFFFFFF).to_bytes(8, "little")


CODE64, CODE32, DATA = 0xA09B00, 0xC09B00, 0xC09300
CODE64_USER, CODE32_USER, DATA_USER = 0xA0FB00, 0xC0FB00, 0xC0F300
