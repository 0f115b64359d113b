# Every target sets itself up: a virtual environment in .venv, and programs from the system's package manager.
# `make wheelhouse` takes a Python as PY=311; everything else is run by that of the virtual environment.
PY_OF_BOARD := $(PY)
override PY := .venv/bin/python

.PHONY: demo test check arm64 arm64-trixie armhf card bench soak format reference footprint supply-chain audit pictures locks wheelhouse clean
.PHONY: setup-demo setup-all programs

demo: setup-demo
	@IMAGES="$(IMAGES)" ONCE="$(ONCE)" exec $(PY) -m demo

# Two files at once at the most: the tests start servers, and some look at how promptly these answer.
test: setup-all programs
	$(PY) -m pytest --numprocesses 2 --dist loadfile $(ARGS)

check: setup-all
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo
	$(PY) -m firmware_configs.supply_chain audit --offline

# From nothing to a result delivered from an emulated board: build/arm64.json and so on. As root.
arm64 arm64-trixie armhf: setup-all programs
	@scripts/ensure-programs qemu-user-static
	$(PY) -m tests.boards.emulated $@

# The golden card in a virtual machine, from nothing to a device that loses nothing: build/card.json. As root; an hour or more.
card: setup-all programs
	@scripts/ensure-programs qemu-system-x86 mtools dosfstools openssh-client
	$(PY) -m tests.boards.card $(STEPS)

bench: setup-all programs
	$(PY) -m tests.benchmarks

soak: setup-all programs
	$(PY) -m pytest -m soak --timeout 3600 $(ARGS)

format: setup-all
	.venv/bin/ruff check --fix-only .
	.venv/bin/ruff format .

# What is written from code: JSON Schema, golden messages, the reference of device.toml.
reference: setup-all
	$(PY) -m tests.golden

# Room on the disk, memory under the limits of each profile, time to start: build/footprint.json and docs/reference/footprint.md.
footprint: setup-all programs
	$(PY) -m tests.benchmarks.footprint $(PROFILES)

# What the locks hold: build/sbom (CycloneDX) and docs/reference/licences.md; then whether any of it is known to be unsafe.
supply-chain: setup-all
	$(PY) -m firmware_configs.supply_chain write

audit: setup-all
	$(PY) -m firmware_configs.supply_chain audit

# The clinic's page as docs/images shows it.
pictures: setup-all programs
	$(PY) -m tests.pictures

# Which exact wheels each board gets: written anew from setup.cfg with the newest versions, and committed.
locks: setup-all
	$(PY) -m firmware_configs.wheelhouse.locks

# One file that installs the device on a board without internet: make wheelhouse ARCH=aarch64 PY=311
wheelhouse: setup-all
	@$(PY) -m firmware_configs.wheelhouse.collect $(ARCH) $(PY_OF_BOARD)

setup-demo:
	@scripts/ensure-venv edge broker
	@scripts/ensure-programs mosquitto

setup-all:
	@scripts/ensure-venv edge export broker dev

programs:
	@scripts/ensure-programs mosquitto postgresql chromium libatomic1 strace dcmtk dicom3tools orthanc systemd tcc debootstrap \
	    cloud-init shellcheck nftables iproute2 fdisk e2fsprogs

clean:
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
