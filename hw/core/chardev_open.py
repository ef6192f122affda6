"""`-serial` specifications: null, stdio, mon:stdio, file:PATH, pty, unix:PATH[,server=on][,wait=off]."""

from __future__ import annotations

import os
import pty
import socket
import tty
from collections.abc import Callable
from pathlib import Path

from hw.core.chardev import Chardev, FdChardev, NullChardev, Poller
from hw.core.chardev_stdio import Mux, StdioChardev


class ChardevError(Exception):
    """A specification that cannot be served; the message names it and says why."""


def open_chardev(spec: str, *, on_exit: Callable[[], None], notice: Callable[[str], None]) -> Chardev | None:
    """The device for one `-serial` argument, None for `none`. `notice` gets what the user must know (a pty's name).

    `on_exit` is Ctrl-A x of a multiplexed terminal. For `mon:` the port returned is the console; its multiplexer is
    `port._mux`, where a monitor takes a second port.
    """
    kind, _, rest = spec.partition(":")
    if spec == "none":
        return None
    if spec == "null":
        return NullChardev()
    if spec == "stdio":
        return StdioChardev()
    if spec == "mon:stdio":
        return Mux(StdioChardev(signals=False), on_exit).add_port()
    if kind == "file":
        return open_file(rest)
    if spec == "pty":
        return PtyChardev(notice)
    if kind == "unix":
        return UnixChardev(rest, notice)
    raise ChardevError(f"-serial {spec}: unknown; there are none, null, stdio, mon:stdio, file:PATH, pty, unix:PATH")


def open_file(path: str) -> FdChardev:
    """`file:PATH`: output to a file, truncated first; no input."""
    if not path:
        raise ChardevError("-serial file: needs a path, as in file:boot.log")
    try:
        return FdChardev(-1, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644))
    except OSError as error:
        raise ChardevError(f"-serial file:{path}: {error.strerror}") from error


class PtyChardev(FdChardev):
    """A pseudo-terminal whose other end the user opens. Output while nobody listens is dropped, as QEMU does."""

    def __init__(self, notice: Callable[[str], None]) -> None:
        master, slave = pty.openpty()
        tty.setraw(slave)
        # Keeping the other end open spares us EIO and hang-ups when the last reader leaves.
        self._slave = slave
        self.path = os.ttyname(slave)
        os.set_blocking(master, False)
        super().__init__(master, master)
        notice(f"char device redirected to {self.path} (label serial0)")

    @property
    def congested(self) -> bool:
        return False

    def push(self) -> None:
        super().push()
        self._out.clear()  # the kernel's buffer is full: nobody reads

    def close(self) -> None:
        super().close()
        if self._slave >= 0:
            os.close(self._slave)
            self._slave = -1


class _Listener:
    """The listening socket of a `UnixChardev`."""

    def __init__(self, owner: UnixChardev) -> None:
        self._owner = owner

    def fileno(self) -> int:
        listener = self._owner.listener
        return listener.fileno() if listener is not None and self._owner.connection is None else -1

    def wants_read(self) -> bool:
        return True

    def wants_write(self) -> bool:
        return False

    def on_readable(self) -> None:
        self._owner.accept()

    def on_writable(self) -> None:
        pass


class UnixChardev(FdChardev):
    """A Unix socket: client by default; `server=on` (or `server`) listens, `wait=off` (or `nowait`) without waiting
    for the first client. One client at a time; output without a client is dropped."""

    def __init__(self, spec: str, notice: Callable[[str], None]) -> None:
        super().__init__(-1, -1)
        path, *options = spec.split(",")
        server, wait = _server_options(spec, options)
        if not path:
            raise ChardevError(f"-serial unix:{spec}: needs a path")
        self.listener: socket.socket | None = None
        self.connection: socket.socket | None = None
        self._path = path if server else None
        self._poll_listener = _Listener(self)
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if not server:
                end.connect(path)
                self._connected(end)
                return
            if Path(path).is_socket():
                Path(path).unlink()
            end.bind(path)
            end.listen(1)
        except OSError as error:
            end.close()
            raise ChardevError(f"-serial unix:{path}: {error.strerror}") from error
        self.listener = end
        if wait:
            notice(f"waiting for connection on: disconnected:unix:{path},server=on")
            self._connected(end.accept()[0])
        end.setblocking(False)

    @property
    def pollers(self) -> tuple[Poller, ...]:
        return (*super().pollers, self._poll_listener)

    def accept(self) -> None:
        """The listening socket is readable."""
        if self.listener is None or self.connection is not None:
            return
        try:
            self._connected(self.listener.accept()[0])
        except OSError:
            return

    def _connected(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.read_fd = self.write_fd = connection.fileno()

    def _disconnected(self) -> None:
        self.read_fd = self.write_fd = -1
        self._out.clear()
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        self.on_drained()

    def write_failed(self, error: OSError) -> None:
        self._disconnected()

    def end_of_input(self) -> None:
        self._disconnected()

    def close(self) -> None:
        self.push()
        self._disconnected()
        if self.listener is not None:
            self.listener.close()
            self.listener = None
            if self._path is not None:
                Path(self._path).unlink(missing_ok=True)


def _server_options(spec: str, options: list[str]) -> tuple[bool, bool]:
    server, wait = False, True
    for option in options:
        match option:
            case "server" | "server=on":
                server = True
            case "server=off":
                server = False
            case "nowait" | "wait=off":
                wait = False
            case "wait" | "wait=on":
                wait = True
            case _:
                raise ChardevError(
                    f"-serial unix:{spec}: unknown option {option!r}; there are server=on|off, wait=on|off"
                )
    return server, wait
