"""Writes an initramfs image: a directory tree as a newc cpio archive, compressed with gzip.

The format is the kernel's Documentation/driver-api/early-userspace/buffer-format.rst; the archive is written by GNU
cpio. The same tree gives the same bytes: names sorted, times fixed, owner root, inodes renumbered.
"""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import subprocess
from pathlib import Path

from tcg.cli.guestfiles.archive import Archive, ArchiveError, unpack

# All files carry this time: 2020-01-01 00:00:00 UTC.
FIXED_TIME = 1577836800


def cpio_program(archive: Archive, cache: Path) -> Path:
    """GNU cpio: the system's, else Debian's package unpacked in the cache."""
    if installed := shutil.which("cpio"):
        return Path(installed)
    tree = cache / "cpio"
    for attempt in range(2):
        for place in ("usr/bin/cpio", "bin/cpio"):
            if (tree / place).is_file():
                return tree / place
        if attempt == 0:
            unpack(archive.single("cpio"), tree)
    raise ArchiveError("Debian's cpio package holds no cpio")


def write(tree: Path, out: Path, cpio: Path) -> int:
    """Pack ``tree`` into ``out`` (replaced at once, never half written); return the image's size in bytes."""
    names = [path.relative_to(tree) for path in tree.rglob("*")]
    for path in names:
        os.utime(tree / path, (FIXED_TIME, FIXED_TIME), follow_symlinks=False)
        if not (tree / path).is_symlink():
            _normalise_mode(tree / path)
    listing = b"\0".join(os.fsencode(path) for path in sorted(names))
    command = [str(cpio), "--create", "--format=newc", "--null", "--quiet", "--reproducible", "--owner=+0:+0"]
    done = subprocess.run(command, cwd=tree, input=listing, capture_output=True, check=False)
    if done.returncode != 0:
        raise ArchiveError(f"cpio: {done.stderr.decode(errors='replace').strip()}")
    temporary = out.with_name(f"{out.name}.{os.getpid()}")
    with temporary.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as image:
        image.write(done.stdout)
    temporary.replace(out)
    return out.stat().st_size


def _normalise_mode(path: Path) -> None:
    """Drop set-id bits and what the builder's umask left: 755 or 644, so the image does not depend on who made it."""
    executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
    path.chmod(0o755 if executable else 0o644)
