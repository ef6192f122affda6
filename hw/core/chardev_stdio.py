"""The terminal: raw mode that is restored whatever happens, and the Ctrl-A multiplexer of `mon:stdio`."""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import stat
import termios
from collections.abc import Callable

from hw.core.chardev import FdChardev, NullChardev, Poller

ESCAPE = 0x01  # Ctrl-A
HELP = (
    "\r\n"
    "C-a h    print this help\r\n"
    "C-a x    exit the emulator\r\n"
    "C-a s    save disk data back to file (if -snapshot)\r\n"
    "C-a b    send break (magic sysrq)\r\n"
    "C-a c    switch between console and monitor\r\n"
    "C-a C-a  send C-a\r\n"
)


class StdioChardev(FdChardev):
    """Standard input and output. A terminal is put into raw mode until `close`; with `signals`, Ctrl-C, Ctrl-Z and
    Ctrl-backslash stay the host's, as QEMU's `signal=on`."""

    def __init__(self, *, signals: bool = True) -> None:
        super().__init__(_private(0, os.O_RDONLY), _private(1, os.O_WRONLY))
        self._saved: list[object] | None = None
        self._flags: dict[int, bool] = {}
        if os.isatty(0):
            self._saved = termios.tcgetattr(0)
            termios.tcsetattr(0, termios.TCSANOW, _raw(self._saved, signals=signals))  # type: ignore[arg-type]
        shared = [fd for fd in (self.read_fd, self.write_fd) if 0 <= fd <= 2]
        # Both may be one open file description: note every flag before changing any.
        self._flags = {fd: os.get_blocking(fd) for fd in shared}
        for fd in shared:
            os.set_blocking(fd, False)
        atexit.register(self.close)

    def close(self) -> None:
        """Restore the terminal and write what is left, blocking for it: a terminal takes it."""
        flags, self._flags = self._flags, {}
        for fd, blocking in flags.items():
            os.set_blocking(fd, blocking)
        # The terminal, or whoever reads the pipe, gets a second for what is left: it may have stopped reading.
        while self._out and self.write_fd >= 0 and select.select([], [self.write_fd], [], 1.0)[1]:
            left = len(self._out)
            self.push()
            if len(self._out) == left:
                break
        if self._saved is not None:
            termios.tcsetattr(0, termios.TCSANOW, self._saved)  # type: ignore[arg-type]
            self._saved = None
        super().close()
        atexit.unregister(self.close)


def _private(fd: int, flags: int) -> int:
    """The same terminal or pipe as an open file description of our own, so that O_NONBLOCK does not reach the shell or
    standard error; `fd` itself where that cannot be had, -1 when it is closed."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return -1
    if stat.S_ISCHR(mode) or stat.S_ISFIFO(mode):
        with contextlib.suppress(OSError):
            return os.open(f"/proc/self/fd/{fd}", flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    return fd


def _raw(attributes: list[object], *, signals: bool) -> list[object]:
    """No line editing, no echo, no translation of input; output translation stays as the terminal has it."""
    iflag, oflag, cflag, lflag, ispeed, ospeed, cc = attributes
    assert isinstance(iflag, int) and isinstance(oflag, int) and isinstance(cflag, int) and isinstance(lflag, int)
    assert isinstance(cc, list)
    iflag &= ~(
        termios.IGNBRK
        | termios.BRKINT
        | termios.PARMRK
        | termios.ISTRIP
        | termios.INLCR
        | termios.IGNCR
        | termios.ICRNL
        | termios.IXON
    )
    oflag |= termios.OPOST
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN)
    if not signals:
        lflag &= ~termios.ISIG
    cflag = (cflag & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
    cc = list(cc)
    cc[termios.VMIN] = 1
    cc[termios.VTIME] = 0
    return [iflag, oflag, cflag, lflag, ispeed, ospeed, cc]


class MuxPort(NullChardev):
    """One frontend's end of a multiplexed device; it gets input while it has the focus."""

    def __init__(self, mux: Mux) -> None:
        super().__init__()
        self._mux = mux
        self.on_focus: Callable[[], None] = lambda: None

    @property
    def congested(self) -> bool:
        return self._mux.backend.congested

    @property
    def pollers(self) -> tuple[Poller, ...]:
        return self._mux.backend.pollers if self is self._mux.ports[0] else ()

    def write(self, data: bytes) -> None:
        self._mux.backend.write(data)

    def input_changed(self) -> None:
        self._mux.deliver()

    def close(self) -> None:
        self._mux.backend.close()


class Mux:
    """Several frontends on one backend. Ctrl-A escapes: `on_exit` for x, `on_save` for s; c moves the focus on."""

    def __init__(self, backend: FdChardev, on_exit: Callable[[], None]) -> None:
        self.backend = backend
        self.on_exit = on_exit
        self.on_save: Callable[[], None] = lambda: None
        self.ports: list[MuxPort] = []
        self._focus = 0
        self._escaped = False
        self._pending = bytearray()
        backend.on_input = self._input
        backend.can_accept = self._room
        backend.on_drained = self._drained

    def add_port(self) -> MuxPort:
        """A port for one more frontend; the first one starts with the focus."""
        port = MuxPort(self)
        self.ports.append(port)
        return port

    @property
    def focus(self) -> MuxPort:
        return self.ports[self._focus]

    def _room(self) -> int:
        # Escapes must work even while the guest reads nothing: keep a small buffer of our own.
        return 64 - len(self._pending)

    def _drained(self) -> None:
        for port in self.ports:
            port.on_drained()

    def _input(self, data: bytes) -> None:
        for byte in data:
            if self._escaped:
                self._escaped = False
                self._command(byte)
            elif byte == ESCAPE:
                self._escaped = True
            else:
                self._pending.append(byte)
        self.deliver()

    def _command(self, byte: int) -> None:
        match byte:
            case 0x01:
                self._pending.append(byte)
            case 0x68 | 0x3F:  # h, ?
                self.backend.write(HELP.encode())
            case 0x78:  # x
                self.backend.write(b"Tessera: Terminated\r\n")
                self.on_exit()
            case 0x73:  # s
                self.on_save()
            case 0x62:  # b
                self.focus.on_break()
            case 0x63:  # c
                self.deliver()
                self._pending.clear()
                if len(self.ports) > 1:
                    self._focus = (self._focus + 1) % len(self.ports)
                    self.focus.on_focus()
            case _:
                pass

    def deliver(self) -> None:
        """Pass buffered input to the frontend with the focus, as far as it has room."""
        while self._pending:
            room = self.focus.can_accept()
            if room <= 0:
                return
            data = bytes(self._pending[:room])
            del self._pending[: len(data)]
            self.focus.on_input(data)
