# Two commands do all the set-up that they need: `make demo` and `make test`.
#
# On Debian and Ubuntu, root gets the missing packages installed; anybody else is told the command.
# Nothing is asked, and nothing is fetched when nothing is missing.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PREFIX ?= /usr/local
DESTDIR ?=

# The system's Python first: the headers that Debian installs are those of that one.
PYTHON ?= $(firstword $(foreach p,/usr/bin/python3 python3,$(shell \
	$(p) -c 'import sys; sys.version_info >= (3, 11) and print("$(p)")' 2>/dev/null)))

BUILD_PACKAGES := fuse3 libfuse3-dev pkg-config gcc libc6-dev python3-dev python3-venv
INSTALL_PACKAGES := fuse3 python3-venv
TEST_PACKAGES := borgbackup btrfs-progs e2fsprogs fio git libarchive-tools mandoc mount postgresql restic rsync \
	sqlite3 strace systemd util-linux xfsprogs zsh
BENCH_PACKAGES := e2fsprogs fio libnbd-bin mount nbdkit postgresql qemu-system-common rsync util-linux \
	xfsprogs

# The tests want PostgreSQL's programs; a server of the system is not to be made for them.
NO_CLUSTER := /etc/postgresql-common/createcluster.d/iifuse.conf

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
PIP := -m pip --quiet --disable-pip-version-check --no-input
export PIP_ROOT_USER_ACTION := ignore

# Whoever has nothing left takes the next test. A third of the time tests wait for disks and
# programs, so one more runs than there are processors. Many processors share few disks.
PARALLEL = $(BIN)/python -m pytest -n $$(($$(nproc) + 1)) --maxprocesses=8 --dist=load \
	--maxschedchunk=2

WHEELS := build/wheels
PROJECT = $(shell $(PYTHON) -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
	print($(1))")
VERSION = $(call PROJECT,p['version'])
PROGRAMS = $(call PROJECT,*p['scripts'])

.PHONY: help demo test test-long test-crash lint check static venv bench bench-quick clean
.PHONY: wheels dist install uninstall build-packages install-packages test-packages bench-packages

help:
	@echo 'make demo     the LAN-free backup procedure on real data, from start to end'
	@echo 'make test     lint, types and all tests: 10 minutes on two processors'
	@echo 'make check    lint, types, pure and store tests: a minute'
	@echo 'make test-long  the large matrices whole, of which a test run draws a sample: 20 minutes'
	@echo 'make test-crash  the long tests, for an hour or for IIFUSE_CRASH_SECONDS'
	@echo 'make lint     ruff, mypy, manual pages and the rules of the project'
	@echo 'make venv     leave all programs in $(BIN)'
	@echo 'make bench    how fast it is beside other programs: 40 minutes, writes benchmarks/RESULTS.md'
	@echo 'make bench-quick  the same in 3 minutes, roughly; writes nothing'
	@echo 'make install  install under PREFIX=$(PREFIX) (DESTDIR is honoured)'
	@echo 'make uninstall  remove what make install has made; the state stays'
	@echo 'make dist     an archive to install from where nothing is compiled or downloaded'
	@echo 'make clean    remove what was built here'

demo: venv test-packages
	$(BIN)/python examples/demo.py

test: venv test-packages static
	$(PARALLEL) -m 'not alone' tests
	$(BIN)/python -m pytest -m alone tests
	@echo 'make test: lint, types and tests passed'

check: venv test-packages static
	$(PARALLEL) --quiet tests/project tests/core tests/store
	@echo 'make check: lint, types, pure and store tests passed'

test-long: venv test-packages
	IIFUSE_WHOLE=1 $(PARALLEL) -m 'sampled and not alone' tests
	IIFUSE_WHOLE=1 $(BIN)/python -m pytest -m 'sampled and alone' tests || test $$? -eq 5

test-crash: venv test-packages
	IIFUSE_CRASH_SECONDS=$${IIFUSE_CRASH_SECONDS:-3600} $(BIN)/python -m pytest -s -m long tests

lint: venv test-packages static
	mandoc -T lint -W warning man/*.[0-9]
	$(BIN)/python -m pytest --quiet tests/project
	@echo 'make lint: passed'

# What needs no pytest.
static: venv $(VENV)/types/iitools
	$(BIN)/ruff check .
	MYPYPATH=$(VENV)/types $(BIN)/mypy --package iifuse --package iitools

# The package iitools lies in tools/; mypy looks for packages under their own names.
$(VENV)/types/iitools: $(STAMP)
	mkdir -p $(@D)
	ln -sfn ../../tools $@
	touch -h $@

bench: venv bench-packages
	$(BIN)/python benchmarks/bench.py

bench-quick: venv bench-packages
	$(BIN)/python benchmarks/bench.py --quick

venv: $(STAMP)

$(STAMP): pyproject.toml | build-packages
	@test -n '$(PYTHON)' || { echo 'iifuse needs Python 3.11 or newer' >&2; exit 1; }
	@echo 'preparing $(VENV) (the first time, pyfuse3 is compiled: about a minute)'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python $(PIP) install --use-pep517 --editable '.[dev]'
	@touch $@

# $(call packages,NAMES,TARGET): have Debian packages installed. Other systems: see README.md.
define packages
	@command -v dpkg-query >/dev/null || exit 0; \
	have=" $$(dpkg-query -W -f '$${Package}=$${db:Status-Status} ' $(1) 2>/dev/null)"; \
	missing=; for name in $(1); do \
		case "$$have" in *" $$name=installed "*) ;; *) missing="$$missing $$name" ;; esac; \
	done; \
	test -n "$$missing" || exit 0; \
	if test "$$(id -u)" -ne 0; then \
		echo "packages are missing; as root, run:" >&2; \
		echo "  apt-get update && apt-get install -y --no-install-recommends$$missing" >&2; \
		exit 1; \
	fi; \
	echo "installing$$missing"; \
	export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a; \
	case "$$missing" in *postgresql*) \
		trap 'rm -f $(NO_CLUSTER)' EXIT; mkdir -p $(dir $(NO_CLUSTER)); \
		echo 'create_main_cluster = false' >$(NO_CLUSTER) ;; esac; \
	{ apt-get -qq update && \
	  apt-get -qq install -y --no-install-recommends $$missing; } </dev/null >/dev/null
endef

install-packages:
	$(call packages,$(INSTALL_PACKAGES))

build-packages:
	$(call packages,$(BUILD_PACKAGES))

test-packages:
	$(call packages,$(TEST_PACKAGES))

bench-packages:
	$(call packages,$(BENCH_PACKAGES))

# Everything that an installation needs, compiled and downloaded: with it `make install` does neither.
wheels: $(WHEELS)/.complete

$(WHEELS)/.complete: pyproject.toml $(shell find iifuse tools -name '*.py' 2>/dev/null)
	@$(MAKE) build-packages
	@echo 'building $(WHEELS) (pyfuse3 is compiled: about a minute)'
	@rm -rf build/lib build/bdist.* $(WHEELS)
	@mkdir -p $(WHEELS)
	@$(PYTHON) -m venv --clear build/venv
	@build/venv/bin/python $(PIP) wheel --use-pep517 --wheel-dir $(WHEELS) pip .
	@touch $@

# Hosts of the same system and processor install from it: unpack it, and `make install` there.
dist: wheels
	tar -C .. -czf build/iifuse-$(VERSION).tar.gz --owner=0 --group=0 --transform='s|^[^/]*|iifuse-$(VERSION)|' \
		$(addprefix $(notdir $(CURDIR))/,Makefile README.md CHANGELOG.md pyproject.toml man packaging systemd $(WHEELS))
	@echo 'make dist: build/iifuse-$(VERSION).tar.gz'

install: install-packages wheels
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' PYTHON='$(PYTHON)' VERSION='$(VERSION)' WHEELS='$(WHEELS)' \
		PROGRAMS='$(PROGRAMS)' sh packaging/install.sh install

uninstall:
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' sh packaging/install.sh uninstall

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
