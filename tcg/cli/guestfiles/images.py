"""What each guest file holds, and how it is made.

``vmlinuz``             the kernel of ``linux-image-cloud-amd64``, as packaged
``initrd.gz``           ``busybox-static`` with all its applets and our ``/init``
``initrd-programs.gz``  that and ``perl-base``, ``python3-minimal`` and ``openssl`` with their libraries
``initrd-bench.gz``     ``initrd.gz`` and the benchmark program, where one has been built
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tcg.cli.guestfiles.archive import Archive, extract_member, unpack
from tcg.cli.guestfiles.initramfs import cpio_program, write

KERNEL = "linux-image-cloud-amd64"
PROGRAMS = ("perl-base", "python3-minimal", "openssl")

_INIT = Path(__file__).with_name("init.sh")
_DIRECTORIES = ("bin", "sbin", "usr/bin", "usr/sbin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var")

# Documentation, translations, character sets and package bookkeeping: nothing a program here reads.
_DROPPED = (
    "usr/share/doc",
    "usr/share/doc-base",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/bug",
    "usr/share/menu",
    "usr/share/pixmaps",
    "usr/share/applications",
    "usr/share/binfmts",
    "usr/share/initramfs-tools",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/x86_64-linux-gnu/engines-3",
)


@dataclass(frozen=True, slots=True)
class Image:
    """One initramfs: Debian packages (with their libraries) and further files, ``guest path -> host file``."""

    name: str
    packages: tuple[str, ...] = ()
    files: dict[str, Path] = field(default_factory=dict)


def images(bench_program: Path | None) -> list[Image]:
    """The images to make; the benchmark image only where its program exists."""
    wanted = [Image("initrd.gz"), Image("initrd-programs.gz", PROGRAMS)]
    if bench_program is not None and bench_program.is_file():
        wanted.append(Image("initrd-bench.gz", files={"usr/bin/tbench": bench_program}))
    return wanted


def make_kernel(archive: Archive, out: Path) -> str:
    """Write ``vmlinuz``; return the kernel's own name, such as ``vmlinuz-6.1.0-40-cloud-amd64``."""
    return Path(extract_member(archive.kernel(KERNEL), r"/boot/vmlinuz-", out / "vmlinuz")).name


def make_image(archive: Archive, cache: Path, image: Image, out: Path) -> int:
    """Write one initramfs; return its size in bytes."""
    cpio = cpio_program(archive, cache)
    packages = [archive.single("busybox-static")]
    if image.packages:
        packages += archive.with_libraries(image.packages)
    with tempfile.TemporaryDirectory(dir=cache, prefix="tree-") as name:
        tree = Path(name)
        fill(tree, packages, image.files)
        return write(tree, out / image.name, cpio)


def fill(tree: Path, packages: Iterable[Path], files: dict[str, Path]) -> None:
    """Lay out an initramfs root: unpacked packages, ``/init``, accounts, and the further files."""
    for package in packages:
        unpack(package, tree)
    for dropped in _DROPPED:
        shutil.rmtree(tree / dropped, ignore_errors=True)
    for directory in _DIRECTORIES:
        (tree / directory).mkdir(parents=True, exist_ok=True)
    # The applets are linked by /init (busybox --install), so that a build needs not to run a guest program.
    (tree / "bin/sh").unlink(missing_ok=True)
    (tree / "bin/sh").symlink_to("busybox")
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    # Process 1 is a script that waits for its shell and takes no orders: the shell's own go straight to the kernel.
    (tree / "etc/shrc").write_text("".join(f"alias {order}='{order} -f'\n" for order in ("poweroff", "halt", "reboot")))
    (tree / "etc/group").write_text("root:x:0:\n")
    files = {"init": _INIT, **files}
    for place, source in files.items():
        target = tree / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        target.chmod(0o755)
