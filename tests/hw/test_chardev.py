"""Character devices and the main loop on real descriptors: pipes, a pty, sockets. No sleeps: every wait is a poll."""

from __future__ import annotations

import os
import pty
import select
import socket
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest

from hw.core.chardev import HIGH_WATER, FdChardev, NullChardev
from hw.core.chardev_open import ChardevError, PtyChardev, UnixChardev, open_chardev
from hw.core.chardev_stdio import Mux
from hw.core.clock import HostClock, TimerQueue
from hw.core.mainloop import MainLoop

ROOT = Path(__file__).resolve().parents[2]


class Loop:
    """A main loop whose turns a test makes one by one."""

    def __init__(self) -> None:
        self.clock = HostClock()
        self.timers = TimerQueue()
        self.lock = threading.RLock()
        self.loop = MainLoop(self.lock, self.timers, self.clock)

    def until(self, condition: object) -> None:
        assert callable(condition)
        for _ in range(200):
            if condition():
                return
            self.loop.turn(0.05)
        raise AssertionError("the condition did not come true")


@pytest.fixture
def loop() -> Loop:
    return Loop()


def pipe_chardev() -> tuple[FdChardev, int, int]:
    """A device over two pipes, and the outer ends: (device, write input here, read output here)."""
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    os.set_blocking(in_read, False)
    os.set_blocking(out_write, False)
    return FdChardev(in_read, out_write), in_write, out_read


def test_input_waits_for_room(loop: Loop) -> None:
    device, outer_in, _ = pipe_chardev()
    got = bytearray()
    room = [0]
    device.on_input = got.extend
    device.can_accept = lambda: room[0]
    loop.loop.add_chardev(device)
    os.write(outer_in, b"hello")
    loop.loop.turn(0)
    loop.loop.turn(0)
    assert got == b""
    room[0] = 2
    loop.loop.turn(0)
    assert got == b"he"
    room[0] = 100
    loop.until(lambda: got == b"hello")
    os.close(outer_in)
    loop.until(lambda: device.read_fd == -1)


def test_a_slow_reader_congests_and_drains(loop: Loop) -> None:
    device, _, outer_out = pipe_chardev()
    drained: list[int] = []
    device.on_drained = lambda: drained.append(1)
    loop.loop.add_chardev(device)
    total = 0
    while not device.congested:
        device.write(b"x" * 8192)
        total += 8192
        assert total < 64 * HIGH_WATER
    received = 0
    while received < total:
        loop.loop.turn(0)
        received += len(os.read(outer_out, 1 << 20))
    assert received == total and drained and not device.congested


def test_a_reader_that_goes_away_loses_nothing_but_output(loop: Loop) -> None:
    device, _, outer_out = pipe_chardev()
    loop.loop.add_chardev(device)
    os.close(outer_out)
    device.write(b"into the void")
    assert not device.congested and device.write_fd == -1
    device.write(b"again")
    device.close()
    device.close()


def test_mux_escapes() -> None:
    device, _, outer_out = pipe_chardev()
    exits: list[int] = []
    mux = Mux(device, lambda: exits.append(1))
    console, monitor = mux.add_port(), mux.add_port()
    got: dict[str, bytearray] = {"console": bytearray(), "monitor": bytearray()}
    breaks: list[int] = []
    console.on_input = got["console"].extend
    monitor.on_input = got["monitor"].extend
    console.on_break = lambda: breaks.append(1)
    device.received(b"ab\x01")
    device.received(b"\x01\x01bc\x01cm\x01cd\x01h")
    assert got == {"console": bytearray(b"ab\x01cd"), "monitor": bytearray(b"m")}
    assert breaks == [1] and not exits
    assert b"exit the emulator" in os.read(outer_out, 4096)
    device.received(b"\x01x")
    assert exits == [1]


def test_mux_keeps_input_until_the_guest_reads_and_escapes_still_work() -> None:
    device, _, _ = pipe_chardev()
    exits: list[int] = []
    mux = Mux(device, lambda: exits.append(1))
    console = mux.add_port()
    got = bytearray()
    room = [1]

    def take(data: bytes) -> None:
        got.extend(data)
        room[0] -= len(data)

    console.on_input = take
    console.can_accept = lambda: room[0]
    device.received(b"xyz\x01x")
    assert got == b"x" and exits == [1]
    room[0] = 5
    console.input_changed()
    assert got == b"xyz"


def test_pty(loop: Loop) -> None:
    notices: list[str] = []
    device = PtyChardev(notices.append)
    assert device.path in notices[0]
    device.write(b"lost when nobody listens?")
    user = os.open(device.path, os.O_RDWR | os.O_NOCTTY)
    got = bytearray()
    device.on_input = got.extend
    loop.loop.add_chardev(device)
    os.write(user, b"in\n")
    loop.until(lambda: got == b"in\n")
    device.write(b"out\n")
    received = b""
    while not received.endswith(b"out\n"):
        assert select.select([user], [], [], 5)[0]
        received += os.read(user, 100)
    device.write(b"y" * (1 << 20))  # nobody reads: dropped, never blocks
    assert not device.congested
    os.close(user)
    device.close()


def test_unix_server_serves_one_client_after_the_other(loop: Loop, tmp_path: Path) -> None:
    path = str(tmp_path / "serial")
    device = UnixChardev(f"{path},server=on,wait=off", print)
    got = bytearray()
    device.on_input = got.extend
    loop.loop.add_chardev(device)
    device.write(b"nobody there")
    for round_ in (b"one", b"two"):
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)
        loop.until(lambda: device.connection is not None)
        client.send(round_)
        loop.until(lambda expected=round_: got.endswith(expected))
        device.write(b"reply")
        assert client.recv(100) == b"reply"
        client.close()
        loop.until(lambda: device.connection is None)
    device.close()
    assert not Path(path).exists()


def test_file_and_refusals(tmp_path: Path) -> None:
    path = tmp_path / "log"
    device = open_chardev(f"file:{path}", on_exit=lambda: None, notice=print)
    assert device is not None
    device.write(b"line\n")
    device.close()
    assert path.read_bytes() == b"line\n"
    assert open_chardev("none", on_exit=lambda: None, notice=print) is None
    assert isinstance(open_chardev("null", on_exit=lambda: None, notice=print), NullChardev)
    for spec, word in (
        ("file:", "needs a path"),
        (f"file:{tmp_path}/no/such/dir", "No such file"),
        ("tcp:1234", "unknown"),
        ("unix:", "needs a path"),
        ("unix:x,speed=9", "unknown option"),
        (f"unix:{tmp_path}/absent", "No such file"),
    ):
        with pytest.raises(ChardevError, match=word):
            open_chardev(spec, on_exit=lambda: None, notice=print)


@pytest.mark.parametrize(("end", "status"), [("pass", 0), ("raise SystemExit(3)", 3), ("raise ValueError", 1)])
def test_the_terminal_is_raw_and_then_restored(end: str, status: int) -> None:
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    program = (
        "from hw.core.chardev_stdio import StdioChardev\n"
        "import select, sys\n"
        "device = StdioChardev(signals=False)\n"
        "device.write(b'ready\\n')\n"
        "select.select([0], [], [])\n"
        "device.on_input = lambda data: device.write(b'got ' + data.hex().encode() + b'\\n')\n"
        "device.readable()\n" + end + "\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=slave, stdout=slave, stderr=subprocess.DEVNULL, cwd=ROOT
    )
    output = b""
    while b"ready" not in output:
        output += os.read(master, 1000)
    raw = termios.tcgetattr(slave)
    assert not raw[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
    os.write(master, b"\x03")  # Ctrl-C is the guest's
    while b"got 03" not in output:
        output += os.read(master, 1000)
    assert process.wait(20) == status
    assert termios.tcgetattr(slave) == before
    assert os.get_blocking(slave)
    os.close(slave)
    os.close(master)


def test_timers_and_wakes_of_the_loop(loop: Loop) -> None:
    ran: list[str] = []
    loop.timers.schedule(loop.clock.now_ns() + 2_000_000, lambda: ran.append("timer"))
    loop.until(lambda: ran == ["timer"])

    def later() -> None:
        loop.timers.schedule(loop.clock.now_ns() + 1_000_000, loop.loop.stop)

    other = threading.Thread(target=later)
    loop.loop.post(other.start)
    loop.loop.run_until_stopped()  # ends only if the other thread's deadline woke the loop
    other.join()


def test_no_wake_up_is_lost_and_none_is_left_over(loop: Loop) -> None:
    count = 2000
    done: list[int] = []

    def post() -> None:
        for i in range(count):
            loop.loop.post(lambda i=i: done.append(i))  # type: ignore[misc]

    threads = [threading.Thread(target=post) for _ in range(3)]
    for thread in threads:
        thread.start()
    while len(done) < 3 * count:
        before = len(done)
        loop.loop.turn(5.0)
        assert len(done) > before or not loop.loop._posted or any(thread.is_alive() for thread in threads)
    for thread in threads:
        thread.join()
    loop.loop.turn(0)
    assert not select.select([loop.loop._wake_fd], [], [], 0)[0]  # or the loop would spin


def test_work_runs_under_the_lock(loop: Loop) -> None:
    owned: list[bool] = []
    loop.loop.post(lambda: owned.append(loop.lock._is_owned()))  # type: ignore[attr-defined]
    loop.timers.schedule(0, lambda: owned.append(loop.lock._is_owned()))  # type: ignore[attr-defined]
    loop.loop.turn(0)
    assert owned == [True, True]
    loop.loop.close()
    loop.loop.close()
