# Everything a fresh Debian machine needs, one command each. `make help` lists the commands.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

ifeq ($(origin CC),default)
CC           := gcc
endif
TBENCH       := build/tbench
TBENCH_FILES := $(wildcard benchmarks/guest/*.c benchmarks/guest/*.h benchmarks/guest/Makefile)

PYTEST_FLAGS ?=
BENCH_FLAGS  ?=
FUZZ_FLAGS   ?=
BOOT_APPEND  ?= console=ttyS0

.DEFAULT_GOAL := help
.PHONY: help venv system-packages guest boot test fuzz bench bench-micro soak lint format clean distclean

help:
	@echo 'make venv     .venv with tessera and tessera-system-x86_64 installed'
	@echo 'make boot     Debian kernel and busybox from their packages, booted to a shell (poweroff or Ctrl-A x ends it)'
	@echo 'make test     set the machine up and run the suite'
	@echo 'make bench    ours beside qemu-system-x86_64, one table (BENCH_FLAGS="--only integer")'
	@echo 'make bench-micro  what each stage of the translator costs (BENCH_FLAGS="-k decode")'
	@echo 'make soak     the long tests: many boots, stress'
	@echo 'make fuzz     1 000 random states for every x86 form (FUZZ_FLAGS="--chapters arith --seed 7"); goes on where it ended'
	@echo 'make lint     ruff format --check, ruff check, mypy --strict'
	@echo 'make clean    remove build products; make distclean: also .venv and guest/'

venv: $(STAMP)

$(STAMP): pyproject.toml
	@.ci/system-packages python3-venv=python3-venv
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@echo 'building the native run-time (20 s; again by itself when its sources change)'
	@$(BIN)/python -c 'from frontends.x86.recipe import RUNTIME; from tcg.runtime.object import load; load(RUNTIME)'
	@touch $@

# What the tests and benchmarks compare with and build guest programs by. None is needed to run a guest.
system-packages:
	@.ci/system-packages qemu-system-x86_64=qemu-system-x86 iasl=acpica-tools gcc=gcc \
		/usr/include/x86_64-linux-gnu/sys/types.h=libc6-dev cpio=cpio perl=perl openssl=openssl /usr/sbin/dmidecode=dmidecode

$(TBENCH): $(TBENCH_FILES)
	@$(MAKE) --no-print-directory -C benchmarks/guest OUT=$(abspath $@) CC=$(CC)

# Kernel and initramfs images. Status 3 (no archive in reach) is a message, not an end: boot has the embedded guest, and
# the tests that need Debian's kernel say that they are skipped.
guest: $(STAMP)
	@if command -v $(CC) >/dev/null 2>&1; then $(MAKE) --no-print-directory $(TBENCH); \
	else echo 'no C compiler: the benchmark program is not built'; fi
	@$(BIN)/python -m tcg.cli.guestfiles --out guest --bench $(TBENCH) || test $$? = 3

boot: $(STAMP)
	@status=0; $(BIN)/python -m tcg.cli.guestfiles --out guest --bench $(TBENCH) || status=$$?; \
	if [ $$status = 0 ]; then \
		exec $(BIN)/tessera run -M q35 -m 512 -kernel guest/vmlinuz -initrd guest/initrd.gz \
			-append '$(BOOT_APPEND)' -nographic; \
	elif [ $$status = 3 ]; then \
		echo 'Booting the embedded demo guest instead.'; exec $(BIN)/tessera run --demo -nographic; \
	else exit $$status; fi

test: system-packages $(STAMP) guest
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

bench: system-packages $(STAMP) guest
	$(BIN)/python -m benchmarks.run $(BENCH_FLAGS)

bench-micro: $(STAMP)
	$(BIN)/python -m pytest benchmarks/test_micro.py --benchmark-columns=min,median,max,rounds $(BENCH_FLAGS)

soak: system-packages $(STAMP) guest
	$(BIN)/python -m pytest -m soak $(PYTEST_FLAGS)

fuzz: $(STAMP)
	$(BIN)/python tests/fuzz/x86/campaign.py --states 1000 $(FUZZ_FLAGS)

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find tcg frontends backends hw tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) guest
