"""A checked load of busybox programs. What each must print is worked out here, by Python."""

from __future__ import annotations

import hashlib

# Lines that a guest makes by itself and the host knows: line i holds (i * 7919) mod 100003.
LINES = 5000
NUMBERS = [i * 7919 % 100003 for i in range(1, LINES + 1)]
TEXT = "".join(f"{number}\n" for number in NUMBERS).encode()

# (what, shell command, expected output); each may run again and again in /tmp.
CHECKS: tuple[tuple[str, str, str], ...] = (
    (
        "awk",
        f"awk 'BEGIN {{ for (i = 1; i <= {LINES}; i++) print i * 7919 % 100003 }}' >numbers; wc -c <numbers",
        f"{len(TEXT)}\n",
    ),
    ("sha256sum", "sha256sum <numbers | cut -d' ' -f1", hashlib.sha256(TEXT).hexdigest() + "\n"),
    ("md5sum", "md5sum <numbers | cut -d' ' -f1", hashlib.md5(TEXT).hexdigest() + "\n"),
    ("gzip", "gzip -9 <numbers | gzip -dc | cmp - numbers && echo same", "same\n"),
    ("bzip2", "bzip2 <numbers | bzip2 -dc | cmp - numbers && echo same", "same\n"),
    (
        "sort",
        "sort -n numbers | sha256sum | cut -d' ' -f1",
        hashlib.sha256("".join(f"{n}\n" for n in sorted(NUMBERS)).encode()).hexdigest() + "\n",
    ),
    (
        "sum in awk",
        "awk '{ s += $1 * NR % 1000; q += $1 / NR } END { printf \"%d %.6f\\n\", s, q }' numbers",
        f"{sum(n * i % 1000 for i, n in enumerate(NUMBERS, 1))} {sum(n / i for i, n in enumerate(NUMBERS, 1)):.6f}\n",
    ),
    ("fork loop", "n=0; for i in $(seq 200); do n=$((n + $(echo $i))); done; echo $n", f"{sum(range(201))}\n"),
    ("exec loop", "for i in $(seq 100); do /bin/busybox true || break; done; echo $i", "100\n"),
    ("pipe line", "seq 20000 | sed 's/7/x/g' | grep -c x", f"{sum('7' in str(i) for i in range(1, 20001))}\n"),
    ("tar", "mkdir -p d && cp numbers d/a && tar cf - d | tar tf - && rm -r d", "d/\nd/a\n"),
    ("dc", "echo '2 200 ^ p' | dc", f"{2**200}\n"),
    ("bc", "echo 'scale=40; 4*a(1)' | bc -l", "3.1415926535897932384626433832795028841968\n"),
)
