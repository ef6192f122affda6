"""The toy guest's meaning in plain Python, byte by byte from memory: the reference for self-rewriting programs."""

from toy_guest import LENGTHS

M64 = (1 << 64) - 1


class Model:
    """RAM and registers; `run` until halt, a fault or trap (the machine shuts down), or `limit` instructions."""

    def __init__(self, ram: bytearray, mapped: int) -> None:
        self.ram = ram
        self.mapped = mapped
        self.regs = [0] * 8
        self.pc = 0
        self.status = 0

    def run(self, pc: int, limit: int) -> str:
        self.pc = pc
        for _ in range(limit):
            ending = self.step()
            if ending:
                return ending
        return "limit"

    def _there(self, gva: int, size: int) -> bool:
        return gva >= 0 and gva + size <= self.mapped

    def step(self) -> str:
        ram, regs, pc = self.ram, self.regs, self.pc
        if not self._there(pc, 1):
            return "shutdown"
        op = ram[pc]
        length = LENGTHS.get(op, 1)
        if not self._there(pc, length) or op not in LENGTHS or op == 9:
            return "shutdown"
        code = bytes(ram[pc : pc + length])
        following = pc + length
        if op == 1:
            regs[code[1] & 7] = regs[code[1] & 7] + int.from_bytes(code[2:6], "little", signed=True) & M64
        elif op == 2:
            self.status = regs[code[1] & 7] = regs[code[1] & 7] - 1 & M64
        elif op == 3:
            if self.status:
                following += int.from_bytes(code[1:2], "little", signed=True)
        elif op == 4:
            gva = regs[code[2] & 7]
            if not self._there(gva, 8):
                return "shutdown"
            regs[code[1] & 7] = int.from_bytes(ram[gva : gva + 8], "little")
        elif op in (5, 10):
            gva, size = regs[code[1] & 7], 8 if op == 5 else 1
            if not self._there(gva, size):
                return "shutdown"
            ram[gva : gva + size] = (regs[code[2] & 7] & (1 << 8 * size) - 1).to_bytes(size, "little")
        elif op == 6:
            following += int.from_bytes(code[1:5], "little", signed=True)
        elif op == 7:
            self.pc = following
            return "halt"
        elif op == 8:
            following = regs[code[1] & 7]
        elif op == 12:
            following = 0  # saved_pc: nothing has been delivered
        elif op == 13:
            regs[code[1] & 7] = int.from_bytes(code[2:10], "little")
        elif op == 14:
            regs[code[1] & 7] = regs[code[1] & 7] + regs[code[2] & 7] & M64
        self.pc = following & M64
        return ""
