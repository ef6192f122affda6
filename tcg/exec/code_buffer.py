"""Where host code lives: one memfd mapped twice, so that no page is writable and executable at once.

Native code writes through the writable mapping (`rw`) and runs the executable one (`rx`); `rw - rx` is the delta in the
MACHINE struct. Calls and jumps to the run-time object have 32-bit displacements, so the executable mapping is placed
within
`REACH` of it. Space is handed out by a bump pointer in the MACHINE struct; a full buffer is flushed as a whole.
"""

import ctypes
import mmap
import os

from tcg.runtime.struct import View

REACH = (1 << 31) - (1 << 24)
_STEP = 1 << 26
_PROT_READ, _PROT_WRITE, _PROT_EXEC = 1, 2, 4
_MAP_SHARED, _MAP_FIXED_NOREPLACE = 1, 0x100000
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_FAILED = (1 << 64) - 1


class CodeBufferError(Exception):
    """The host does not give the memory; the message is for the user."""


class CodeBuffer:
    """`size` bytes of code space near the host address `near`. rx, rw: addresses of the two mappings."""

    def __init__(self, size: int, near: int) -> None:
        self.size = (size + mmap.PAGESIZE - 1) & -mmap.PAGESIZE
        self.rx = self.rw = 0
        try:
            handle = os.memfd_create("tessera-code", os.MFD_CLOEXEC)
        except OSError as error:
            raise CodeBufferError(f"no code buffer: {error.strerror}") from error
        try:
            os.ftruncate(handle, self.size)
            self.rx = self._map_near(handle, near)
            self.rw = self._map(0, _PROT_READ | _PROT_WRITE, _MAP_SHARED, handle)
            if not self.rw:
                raise CodeBufferError(
                    f"no {self.size >> 20} MiB for the code buffer: {os.strerror(ctypes.get_errno())}"
                )
        except OSError as error:
            raise CodeBufferError(f"no {self.size >> 20} MiB for the code buffer: {error.strerror}") from error
        finally:
            os.close(handle)

    def _map(self, at: int, protection: int, flags: int, handle: int) -> int:
        address = _libc.mmap(at, self.size, protection, flags, handle, 0)
        return 0 if address in (None, _FAILED) else int(address)

    def _map_near(self, handle: int, near: int) -> int:
        """The executable mapping, all of it within REACH of `near`: below first, where a process has most room."""
        base = near & -_STEP
        for distance in range(0, REACH - self.size, _STEP):
            for at in (base - self.size - distance, base + distance):
                if at <= 0 or max(abs(at - near), abs(at + self.size - near)) > REACH:
                    continue
                got = self._map(at, _PROT_READ | _PROT_EXEC, _MAP_SHARED | _MAP_FIXED_NOREPLACE, handle)
                if got == at:
                    return at
                if got:
                    _libc.munmap(got, self.size)
        raise CodeBufferError(f"no {self.size >> 20} MiB of address space for the code buffer near {near:#x}")

    def attach(self, machine: View) -> None:
        """Enter the buffer into the MACHINE struct, empty."""
        machine.set("code_start", self.rx)
        machine.set("code_top", self.rx)
        machine.set("code_end", self.rx + self.size)
        machine.set("code_delta", self.rw - self.rx)

    def read(self, rx: int, size: int) -> bytes:
        """Host code bytes, for logs and dumps."""
        return ctypes.string_at(rx, size)

    def close(self) -> None:
        for address in (self.rx, self.rw):
            if address:
                _libc.munmap(address, self.size)
        self.rx = self.rw = 0

    def __del__(self) -> None:
        self.close()
