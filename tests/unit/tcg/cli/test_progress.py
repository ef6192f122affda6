"""The progress line: drawn over itself, out of the guest's way, silent where nobody looks."""

import io
import re

import pytest

from tcg.cli.progress import ERASE, Progress


class Stream(io.StringIO):
    """A terminal, or not, that remembers what was written."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    def fileno(self) -> int:
        raise OSError


class Screen:
    """A progress line on a terminal, and time that a test moves."""

    def __init__(self, *, terminal: bool = True) -> None:
        self.now = 10.0
        self.stream = Stream(terminal=terminal)
        self.progress = Progress(self.stream, lambda: self.now)

    def guest(self, text: str) -> None:
        """The guest prints on the same terminal."""
        self.progress.guest_output(text.encode())
        self.stream.write(text)

    def lines(self) -> list[str]:
        """What a person sees at the end."""
        rows = [""]
        for part in re.split(r"(\r\x1b\[K|\r\n|\n)", self.stream.getvalue()):
            if part == ERASE:
                rows[-1] = ""
            elif part in ("\n", "\r\n"):
                rows.append("")
            else:
                rows[-1] += part
        return rows


@pytest.fixture(autouse=True)
def no_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TESSERA_PROGRESS", raising=False)


def test_is_drawn_over_itself_and_erased() -> None:
    screen = Screen()
    for n in range(3):
        screen.progress.show(f"{n} patterns")
        screen.now += 1
        assert screen.lines() == [f"tessera: {n} patterns"]
    screen.progress.erase()
    assert screen.lines() == [""]


def test_guest_lines_stay_whole() -> None:
    screen = Screen()
    for n in range(4):
        screen.progress.show("busy")
        screen.guest(f"[ {n}] boot")
        screen.now += 1
        screen.progress.show("busy, in mid-line")
        screen.guest(" message\r\n")
        screen.now += 1
    screen.progress.erase()
    assert screen.lines() == [f"[ {n}] boot message" for n in range(4)] + [""]


def test_is_not_drawn_too_often() -> None:
    screen = Screen()
    for n in range(1000):
        screen.progress.show(f"{n}")
        screen.now += 0.001
    assert 5 <= screen.stream.getvalue().count("tessera:") <= 11


def test_long_text_stays_on_one_line() -> None:
    screen = Screen()
    screen.progress.show("x" * 500)
    assert len(screen.lines()[0]) == 79


def test_no_terminal_no_line() -> None:
    screen = Screen(terminal=False)
    screen.progress.show("busy")
    screen.progress.erase()
    assert screen.stream.getvalue() == ""


def test_wished_for_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESSERA_PROGRESS", "1")
    screen = Screen(terminal=False)
    for n in range(30):
        screen.progress.show(f"{n}")
        screen.now += 0.125
    screen.progress.erase()
    assert screen.stream.getvalue() == "tessera: 0\ntessera: 8\ntessera: 16\ntessera: 24\n"


def test_a_stream_that_fails_is_left_alone() -> None:
    screen = Screen()
    screen.stream.close()
    screen.progress.show("busy")
    assert not screen.progress.enabled
