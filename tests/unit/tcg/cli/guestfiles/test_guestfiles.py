"""Dependency closure as apt prints it, and initramfs images that are the same bytes for the same tree."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tcg.cli.guestfiles import __main__ as command
from tcg.cli.guestfiles import archive, initramfs
from tcg.cli.guestfiles.images import images

APT_OUTPUT = """\
prog
  PreDepends: libone
 |Depends: libtwo
  Depends: <virtual>
    libtwo
    libother
  Depends: dpkg
libone
  Depends: libc6:any
libtwo
libc6
dpkg
  Depends: tar
"""


def test_parse_depends() -> None:
    graph = archive.parse_depends(APT_OUTPUT)
    assert graph["prog"] == ["libone", "libtwo", "dpkg"]
    assert graph["libone"] == ["libc6"]
    assert graph["libtwo"] == []


def test_closure_stops_at_package_management() -> None:
    assert archive.closure(archive.parse_depends(APT_OUTPUT), ["prog"]) == ["libc6", "libone", "libtwo", "prog"]


def fake_apt(directory: Path, script: str) -> None:
    """Put commands apt-get and apt-cache of our own in ``directory``."""
    directory.mkdir(exist_ok=True)
    for name in ("apt-get", "apt-cache"):
        (directory / name).write_text(f"#!/bin/sh\n{script}")
        (directory / name).chmod(0o755)


def test_no_archive_is_a_message_and_status_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_apt(tmp_path / "bin", "echo 'E: Could not resolve deb.debian.org' >&2; exit 100\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert command.main(["--out", str(tmp_path / "out")]) == 3
    assert "no Debian archive in reach" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_no_apt_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert command.main(["--out", str(tmp_path / "out")]) == 3
    assert "not installed" in capsys.readouterr().err


def test_downloads_are_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second request is served from the cache, with no archive in reach."""
    script = f"""echo "$0 $*" >>{tmp_path}/log
case "$*" in
*--print-uris*) echo "'http://x/a_1_amd64.deb' a_1_amd64.deb 3 SHA256:0" ;;
*download*) echo deb >a_1_amd64.deb ;;
esac
"""
    fake_apt(tmp_path / "bin", script)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    first = archive.Archive(tmp_path / "cache").single("a")
    asked = (tmp_path / "log").read_text()
    assert first.read_text() == "deb\n"
    assert archive.Archive(tmp_path / "cache").single("a") == first
    assert (tmp_path / "log").read_text() == asked


def test_damaged_manifest_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "manifest.json").write_text('{"a alone": [')
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(archive.ArchiveError):
        archive.Archive(tmp_path / "cache").single("a")


@pytest.mark.skipif(shutil.which("cpio") is None, reason="no cpio")
def test_image_is_reproducible_and_complete(tmp_path: Path) -> None:
    cpio = Path(shutil.which("cpio") or "")
    built = []
    for number, umask in enumerate((0o022, 0o077)):
        tree = tmp_path / f"tree{number}"
        old = os.umask(umask)
        try:
            (tree / "bin").mkdir(parents=True)
            (tree / "bin/prog").write_text("#!/bin/sh\n")
            (tree / "bin/prog").chmod(0o755)
            (tree / "bin/link").symlink_to("prog")
            (tree / "etc").mkdir()
            (tree / "etc/name with space").write_text("x" * 1000)
        finally:
            os.umask(old)
        out = tmp_path / f"{number}.gz"
        assert initramfs.write(tree, out, cpio) == out.stat().st_size
        built.append(out.read_bytes())
    assert built[0] == built[1]
    plain = gzip.decompress(built[0])
    assert plain[:6] == b"070701"  # newc
    listing = subprocess.run(
        [str(cpio), "-tv", "--quiet"], input=plain, capture_output=True, check=True
    ).stdout.decode()
    assert "-rwxr-xr-x   1 root     root" in listing
    assert "bin/link -> prog" in listing
    assert "etc/name with space" in listing


def test_bench_image_only_with_its_program(tmp_path: Path) -> None:
    assert "initrd-bench.gz" not in [image.name for image in images(tmp_path / "absent")]
    (tmp_path / "tbench").write_bytes(b"")
    assert "initrd-bench.gz" in [image.name for image in images(tmp_path / "tbench")]
