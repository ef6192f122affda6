"""Debian's perl-base, python3-minimal and openssl in the guest give what the same programs give on the host."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from .harness import Emulator, Guest, linux

PYTHON = r"""
import hashlib, math, re, struct, zlib
r = 12345
def rnd():
    global r
    r = (r * 6364136223846793005 + 1442695040888963407) & (2**64 - 1)
    return r >> 33
a = [rnd() for _ in range(3000)]
print(sum(sorted(a)[::7]), hashlib.sha256(repr(a).encode()).hexdigest(), zlib.crc32(repr(a).encode()))
print(pow(3, 2**40 + 1, 2**521 - 1), math.factorial(200) % 10**40)
print([f"{math.sin(x / 7):.12f} {math.exp(x / 9):.10e} {math.sqrt(x):.15g}" for x in range(20)])
print(repr(0.1 + 0.2), 1e308 * 10, float("nan"), 2.5 // 1, -7 // 2, -7 % 3, round(2.675, 2))
d = {}
for w in re.findall(r"\w+", "the quick brown fox jumps over the lazy dog the end"):
    d[w] = d.get(w, 0) + 1
print(sorted(d.items()), struct.pack("<dfq", 1.5, -2.25, -3).hex())
class A:
    def __init__(self, n): self.n = n
    def __lt__(self, o): return self.n % 97 < o.n % 97
print([x.n for x in sorted(map(A, a))][:10])
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
print(fib(18), len(list(x for x in range(10000) if all(x % y for y in range(2, int(x**.5) + 1)))))
"""

PERL = r"""
my %h; my $r = 1;
for (1 .. 5000) { $r = ($r * 1103515245 + 12345) % 2147483648; $h{$r % 977} .= chr(97 + $r % 26); }
my $s = join ",", map { "$_=" . length $h{$_} } sort { $a <=> $b } keys %h;
print unpack("%32C*", $s), " ", length $s, "\n";
my $t = "the quick brown fox " x 200; (my $u = $t) =~ s/(\w+) (\w+)/$2 $1/g;
print unpack("%32C*", $u), " ", scalar(() = $u =~ /qu\w+k/g), "\n";
printf "%.12f %.10e %g %s\n", sin(1.25), exp(3.5), 1/3, 2**0.5;
my @p = (2); for (my $n = 3; @p < 500; $n += 2) { push @p, $n unless grep { $n % $_ == 0 } @p; }
print "$p[-1] ", pack("H*", "7065726c"), " ", sprintf("%b", 1234567), "\n";
"""

KEY = "-K 00112233445566778899aabbccddeeff -iv 0123456789abcdef"
OPENSSL = (
    "seq 1 20000 | openssl dgst -sha256 -r",
    "seq 1 20000 | openssl dgst -sha512 -r",
    "seq 1 20000 | openssl dgst -md5 -r",
    "seq 1 20000 | openssl dgst -blake2b512 -r",
    f"seq 1 5000 | openssl enc -aes-256-cbc {KEY} 2>/dev/null | openssl dgst -sha256 -r",
    f"seq 1 5000 | openssl enc -aes-128-ctr {KEY} 2>/dev/null | openssl dgst -sha256 -r",
    f"seq 1 5000 | openssl enc -chacha20 {KEY} 2>/dev/null | openssl dgst -sha256 -r",
    "seq 1 5000 | openssl dgst -sha1 -hmac key -r",
    "openssl prime -generate -bits 16 >/dev/null && openssl prime 170141183460469231731687303715884105727",
)


@pytest.fixture(scope="module")
def programs(emulator: Emulator, guest_files: None) -> Iterator[Guest]:
    """A guest with Debian's programs, at its shell."""
    with Guest(emulator, *linux("initrd-programs.gz", append="quiet")) as guest:
        guest.wait_for_shell()
        yield guest


def host(program: str, command: str) -> str:
    """What the command prints on the host."""
    if shutil.which(program) is None:
        pytest.skip(f"no {program} on the host")
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout


def send_script(guest: Guest, name: str, script: str) -> None:
    """Write a script to the guest's /tmp through the console, a few lines at a time."""
    guest.run(f": >/tmp/{name}")
    for line in script.strip().split("\n"):
        guest.run(f"printf %s\\\\n {shlex.quote(line)} >>/tmp/{name}")


def test_python(programs: Guest) -> None:
    send_script(programs, "t.py", PYTHON)
    assert programs.run("python3 -B /tmp/t.py") == host("python3", f"python3 -c {shlex.quote(PYTHON)}")


def test_perl(programs: Guest) -> None:
    send_script(programs, "t.pl", PERL)
    assert programs.run("perl /tmp/t.pl") == host("perl", f"perl -e {shlex.quote(PERL)}")


@pytest.mark.parametrize("command", OPENSSL)
def test_openssl(programs: Guest, command: str) -> None:
    assert programs.run(command) == host("openssl", command)


def test_openssl_signs_and_verifies(programs: Guest) -> None:
    """Keys are random, so the result is checked by the program itself and by the host."""
    key = programs.run("cd /tmp; openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 2>/dev/null; cd /")
    assert "PRIVATE KEY" in key
    programs.run("openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out /tmp/k 2>/dev/null")
    programs.run("openssl dgst -sha256 -sign /tmp/k -out /tmp/s /init && openssl pkey -in /tmp/k -pubout -out /tmp/p")
    assert "Verified OK" in programs.run("openssl dgst -sha256 -verify /tmp/p -signature /tmp/s /init")
