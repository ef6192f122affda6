"""Reading the files that a user names, with errors that name them."""

from pathlib import Path

from hw.firmware.errors import BootError


def read_file(path: Path, option: str) -> bytes:
    """The whole file given with `option`; `BootError` when that cannot be had or is empty."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise BootError(f"{path}: no such file; check {option}") from None
    except IsADirectoryError:
        raise BootError(f"{path}: this is a directory; {option} takes a file") from None
    except OSError as error:
        raise BootError(f"{path}: cannot be read ({error.strerror}); check {option}") from None
    if not data:
        raise BootError(f"{path}: the file is empty; check {option}")
    return data


def encode_command_line(text: str) -> bytes:
    """The command line as a kernel gets it; a NUL would end it early."""
    if "\0" in text:
        raise BootError("the command line (-append) holds a NUL character")
    return text.encode("utf-8", "surrogateescape")
