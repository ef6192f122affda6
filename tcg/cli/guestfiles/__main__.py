"""``python -m tcg.cli.guestfiles --out guest``: make the kernel and the initramfs images.

Exit status: 0 all made, 3 no Debian archive in reach (``make boot`` then boots the embedded demo guest), 1 otherwise.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tcg.cli.guestfiles.archive import Archive, ArchiveError, cache_directory
from tcg.cli.guestfiles.images import images, make_image, make_kernel

EXIT_NO_ARCHIVE = 3


def main(arguments: list[str] | None = None) -> int:
    """Make what is missing in ``--out`` (everything with ``--force``)."""
    parser = argparse.ArgumentParser(prog="python -m tcg.cli.guestfiles", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("guest"), help="directory to write (default: guest)")
    parser.add_argument(
        "--bench", type=Path, default=Path("build/tbench"), help="benchmark program (default: %(default)s)"
    )
    parser.add_argument("--force", action="store_true", help="make files again that are there")
    options = parser.parse_args(arguments)
    out: Path = options.out
    try:
        out.mkdir(parents=True, exist_ok=True)
        cache = cache_directory()
        archive = Archive(cache)
        if options.force or not (out / "vmlinuz").is_file():
            print(f"{out / 'vmlinuz'}: {make_kernel(archive, out)}", flush=True)
        for image in images(options.bench):
            path = out / image.name
            newest = max((source.stat().st_mtime for source in image.files.values()), default=0.0)
            if options.force or not path.is_file() or path.stat().st_mtime < newest:
                print(f"{path}: {make_image(archive, cache, image, out)} bytes", flush=True)
        if not options.bench.is_file():
            print(f"{out / 'initrd-bench.gz'}: not made, no {options.bench} (make bench builds it where gcc is)")
    except ArchiveError as error:
        print(f"guest files: no Debian archive in reach: {error}", file=sys.stderr)
        return EXIT_NO_ARCHIVE
    except OSError as error:
        print(f"guest files: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
