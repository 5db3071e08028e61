# narrows. `make demo` and `make test` need Rust, Python 3 with pip, a C compiler and make; nothing else.
# Everything is built in one profile and one feature set, so that tract is compiled once.

CARGO   ?= cargo
PYTHON  ?= python3
BUNDLE  ?= models/bundles/lite2
TASKS   ?= classify segment
BIN     := $(or $(CARGO_TARGET_DIR),target)/release
BUILD   := --release --locked --workspace

# The shipped photos that suit a task, where SOURCE names no others.
SOURCE_classify := bench/photos/*.*g
SOURCE_segment  := bench/photos/road

.DEFAULT_GOAL := help
.PHONY: help demo test bench figures test-arm test-python miri mutate mutants evaluate micro micro-arm machines profile-tail frame bench-codec soak chaos cameras vivid sinks status alerts kubernetes fuzz seeds fmt audit audit-offline runtime runtime-cpu runtime-gpu build dist test-dist test-packages test-containers test-reproducible clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

demo: runtime ## photos through a split network: SOURCE=DIR for your own, TASKS=classify or TASKS=segment for one task
	@echo "Compiling narrows-head, narrows-tail and the demo: some minutes the first time, on two cores about five."
	@$(CARGO) build --release --locked -p narrows-head -p narrows-tail -p narrows-demo
	@$(BIN)/narrows-demo --bundle $(BUNDLE) --out demo-out $(foreach task,$(TASKS),--$(task) "$(or $(SOURCE),$(SOURCE_$(task)))")

# The last four run where their tools are; else each says in a line what is missing and how to get it.
test: runtime ## format, lints, docs, every test, ten seconds of each fuzz target, the Python packages, ARM emulated
	$(CARGO) fmt --all --check
	$(CARGO) build $(BUILD) --all-targets
	$(CARGO) test $(BUILD)
	$(CARGO) clippy $(BUILD) --all-targets --quiet -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc $(BUILD) --no-deps --quiet
	@$(MAKE) --no-print-directory alerts
	@CARGO="$(CARGO)" tests/fuzz/run.sh 10 || [ $$? = 77 ]
	@PYTHON="$(PYTHON)" tests/python.sh || [ $$? = 77 ]
	@CARGO="$(CARGO)" ARM="$(ARM)" ARM_RUN="$(ARM_RUN)" tests/arm.sh || [ $$? = 77 ]

bench: build ## local, offload or split over a ladder of links, into bench-out: DATA=DIR for labelled data, FULL=1 for all
	@$(BIN)/narrows-bench compare --bundle $(BUNDLE) --out bench-out --source "$(or $(SOURCE),bench/photos/**/*)" \
		$(if $(DATA),--data "$(DATA)") $(if $(FULL),--full)

# The version of Vega-Lite that vl-convert-python draws with is the one in bench/vendor.
FIGURE   := latency-classify-narrowband
SVG      := import sys, vl_convert; print(vl_convert.vegalite_to_svg(open(sys.argv[1]).read(), vl_version="6.4"))
figures: build demo ## make the documents' pictures again: the demo's answer, charts of docs/compare.json, the early exit and rate control (installs vl-convert-python)
	@cp demo-out/highway.overlay.png docs/answer.png
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && $(PYTHON) -m venv "$$folder/venv" \
		&& "$$folder/venv/bin/pip" install --quiet vl-convert-python==1.9.0.post1 \
		&& $(BIN)/narrows-bench compare --from docs/compare.json --out "$$folder" \
		&& "$$folder/venv/bin/python" -c '$(SVG)' "$$folder/charts/$(FIGURE).vl.json" > docs/compare.svg \
		&& "$$folder/venv/bin/python" -c '$(SVG)' models/results/lite2-exit.vl.json > docs/exit.svg \
		&& "$$folder/venv/bin/python" -c '$(SVG)' docs/rate-control.vl.json > docs/rate-control.svg

evaluate: build ## accuracy and bytes on labelled data: DATA=DIR holds imagenet500.tar and camvid-val.tar, LOG=CSV gets a line
	@test -n "$(DATA)" || { echo "make evaluate DATA=DIR: which folder holds imagenet500.tar, imagenet500.csv and camvid-val.tar?"; exit 2; }
	@mkdir -p evaluate-out
	$(BIN)/narrows-bench evaluate --bundle $(BUNDLE) --imagenet $(DATA)/imagenet500.tar \
		--labels $(DATA)/imagenet500.csv --camvid $(DATA)/camvid-val.tar --all-levels \
		--json evaluate-out/evaluate.json $(if $(LOG),--log $(LOG))
	$(BIN)/narrows-bench evaluate --bundle $(BUNDLE) --imagenet $(DATA)/imagenet500.tar --labels $(DATA)/imagenet500.csv --exit \
		--csv evaluate-out/exit.csv --chart evaluate-out/exit.vl.json $(if $(LOG),--log $(LOG))

micro: build ## speed of the int8 networks, of ONNX Runtime and of JPEG encoders, in one run
	@mkdir -p evaluate-out
	$(BIN)/narrows-bench micro --bundle $(BUNDLE) --json evaluate-out/micro.json

micro-arm: build ## instructions of the networks and of a camera's frame on emulated ARM (needs a cross compiler and qemu-user; builds for minutes)
	@mkdir -p evaluate-out
	@CARGO="$(CARGO)" PYTHON="$(PYTHON)" ARM="$(ARM)" BUNDLE="$(BUNDLE)" bench/arm/run.sh $(BIN)/narrows-bench \
		--json evaluate-out/arm.json || [ $$? = 77 ]

# What make micro-arm left is shown as well.
machines: build ## a table of the int8 networks next to ONNX Runtime with AVX2, with this processor's fastest kernels, and on ARM
	@mkdir -p evaluate-out
	@[ "$$(uname -m)" != x86_64 ] || $(BIN)/narrows-bench micro --bundle $(BUNDLE) --kernel avx2 --json evaluate-out/micro-avx2.json
	@$(BIN)/narrows-bench micro --bundle $(BUNDLE) --json evaluate-out/micro.json
	@$(BIN)/narrows-bench machines $$(ls evaluate-out/micro-avx2.json evaluate-out/micro.json evaluate-out/arm.json 2>/dev/null)

profile-tail: build ## where a busy server's time goes: ONNX Runtime, the operating system, its own code (needs perf)
	@bench/profile-tail.sh $(BIN)/narrows-bench $(BUNDLE) $(TASKS) || [ $$? = 77 ]

frame: build ## a camera's frame from its bytes to the packet: time, instructions (needs valgrind), rate; DATA=DIR holds photos-00.tar for agreement
	@mkdir -p evaluate-out
	$(BIN)/narrows-bench frame --bundle $(BUNDLE) $(if $(shell command -v valgrind),--instructions) \
		$(if $(DATA),--photos $(DATA)/photos-00.tar) --json evaluate-out/frame.json

ARM      := aarch64-unknown-linux-gnu
ARM_RUN  ?= qemu-aarch64-static -L /usr/aarch64-linux-gnu
test-arm: ## codec, int8 kernels and pixels of frames on emulated ARM, with dot product and without (needs a cross compiler and qemu)
	@CARGO="$(CARGO)" ARM="$(ARM)" ARM_RUN="$(ARM_RUN)" tests/arm.sh

# Covered: the portable code of every mode but zstd (which is C), both ways, on small features and few of them: parsing,
# layers, escapes, prefixes, truncated, flipped and mutated packets. Not covered: AVX2 (differential tests do that), the
# golden files, large features.
miri: ## the codec's portable code under Miri (skipped without a nightly toolchain that has the miri component)
	@if $(CARGO) +nightly miri --version >/dev/null 2>&1; then \
		MIRIFLAGS="-Zmiri-disable-isolation" $(CARGO) +nightly miri test --locked -p narrows-codec --lib --test round_trip --test hostile; \
	else \
		echo "miri: skipped; missing: rustup toolchain install nightly --component miri"; \
	fi

PACKETS  ?= 10000000
mutate: ## decode PACKETS=10000000 damaged packets of every mode
	$(CARGO) run --release --locked -p narrows-codec --example mutate -- $(PACKETS)

# Every `cargo mutants` changes one place of the code at a time, in a copy, and runs the tests that are named after `-C`.
# What it leaves out, and why, stands in .cargo/mutants.toml. SHARD=0/8 takes one in eight.
MUTANTS  := mutants --profile mutants --timeout 60 $(if $(SHARD),--shard $(SHARD) --sharding round-robin)
mutants: ## change the code in small ways and list the changes that no test finds (needs cargo-mutants, and hours)
	@command -v cargo-mutants >/dev/null || { echo "mutants: cargo-mutants is needed: cargo install --locked cargo-mutants"; exit 2; }
	$(CARGO) $(MUTANTS) -p narrows-wire -o target/mutants-wire
	$(CARGO) $(MUTANTS) -p narrows-codec -o target/mutants-codec
	$(CARGO) $(MUTANTS) -p narrows-tail -f 'tail/src/frontend/**' -C=--lib -o target/mutants-tail
	$(CARGO) $(MUTANTS) -p narrows-head -f 'head/src/uplink*' -f 'head/src/uplink/**' -f 'head/src/policy/pace.rs' \
		-f 'head/src/policy/silence.rs' \
		-C=--lib -o target/mutants-head

bench-codec: build ## bytes and speed of the codec and of other coders: DATA=DIR holds photos-00.tar to photos-02.tar
	@mkdir -p evaluate-out
	$(BIN)/narrows-bench codec --bundle $(BUNDLE) $(if $(DATA),--photos $(DATA)/photos-00.tar --photos $(DATA)/photos-01.tar \
		--photos $(DATA)/photos-02.tar) --json evaluate-out/codec.json

test-python: ## build codec/python and codec/reference into a temporary environment; their tests, and the recipes' quick ones
	@PYTHON="$(PYTHON)" tests/python.sh

FRAMES ?= 100000
soak: build ## answer FRAMES=100000 photos from a FIFO on this device and check that its memory stays flat
	FRAMES=$(FRAMES) $(CARGO) test $(BUILD) --test endless -- --nocapture memory

cameras: build ## cameras that ffmpeg and GStreamer make, and an hour's worth of frames while one is killed and stopped
	$(CARGO) test $(BUILD) --test cameras
	$(CARGO) test $(BUILD) --test camera_programs -- --nocapture --test-threads=1 --include-ignored

vivid: build ## the kernel's virtual camera by V4L2 in a virtual machine, taken away and brought back (needs qemu; minutes)
	@tests/vivid.sh "$(BIN)/narrows-head" || [ $$? = 77 ]

sinks: build ## where answers go: files, webhooks, a real broker (mosquitto), and the page in a browser (Chromium)
	$(CARGO) test $(BUILD) --test sinks --test mqtt --test page
	@echo "Pictures of the page are in target/page."

status: build alerts ## the server's status: health, metrics by promtool, and the dashboard in a browser (Chromium)
	$(CARGO) test $(BUILD) --test status
	@echo "Pictures of the dashboard are in target/page."

alerts: ## check the alert rules and show that each fires when it should (needs promtool)
	@if command -v promtool >/dev/null; then \
		cd deploy/prometheus && promtool check rules narrows-tail.rules.yml && promtool test rules narrows-tail.test.yml; \
	else \
		echo "alerts: skipped; missing: promtool (apt install prometheus)"; \
	fi

ROUNDS ?= 200
chaos: build ## kill server, broker, camera and network ROUNDS=200 times in random order; every frame has one outcome (SEED=N repeats an order)
	ROUNDS=$(ROUNDS) $(CARGO) test $(BUILD) --test chaos -- --nocapture

kubernetes: build ## the manifests in deploy/kubernetes against the schemas of Kubernetes (needs kubectl, Python and npm)
	@PYTHON="$(PYTHON)" tests/kubernetes.sh "$(BIN)/narrows-tail" || [ $$? = 77 ]

SECONDS_EACH ?= 600
fuzz: ## run every fuzz target SECONDS_EACH=600 seconds, keeping what is found (needs cargo-fuzz and a nightly toolchain)
	@CARGO="$(CARGO)" tests/fuzz/run.sh $(SECONDS_EACH) tests/fuzz/corpus

seeds: ## write the fuzz targets' seed corpus again, from shipped files
	rm -rf tests/fuzz/corpus-seed
	$(CARGO) build $(BUILD) --example seeds
	$(BIN)/examples/seeds tests/fuzz/corpus-seed

fmt: ## format every crate
	$(CARGO) fmt --all

DENY ?= cargo-deny
audit: audit-offline ## licences, bans, sources and advisories; fails where the advisory database cannot be reached (needs cargo-deny)
	@$(DENY) --locked fetch db || { echo "audit: failed: advisories are not checked, since their database cannot be reached" \
		"(make audit-offline checks licences, bans and sources alone)"; exit 1; }
	$(DENY) --locked check advisories

audit-offline: ## licences, bans and sources alone, which needs no network
	@command -v $(DENY) >/dev/null || { echo "audit: failed: cargo-deny is missing (cargo install --locked cargo-deny)"; exit 2; }
	$(DENY) --locked check licenses bans sources

runtime: ## unpack ONNX Runtime into .runtime: the build that is there already, else the one for CPUs
	@$(PYTHON) tail/runtime/fetch.py .runtime

runtime-cpu: ## unpack ONNX Runtime for CPUs into .runtime; stays until changed
	@$(PYTHON) tail/runtime/fetch.py --build cpu .runtime

runtime-gpu: ## unpack ONNX Runtime for CUDA 13 into .runtime (256 MB); stays until changed
	@$(PYTHON) tail/runtime/fetch.py --build gpu .runtime

build: runtime ## every program, into target/release
	$(CARGO) build $(BUILD)

# Zig's linker, cargo-zigbuild and the CycloneDX library come from PyPI, cargo-deb from crates.io, into target/dist-tools.
dist: ## packages, archives, bills of materials and checksums for arm64, amd64 and armhf, into dist-out: ARCHS="arm64 amd64" for some
	@CARGO="$(CARGO)" PYTHON="$(PYTHON)" deploy/dist/build.sh $(ARCHS)

test-dist: runtime ## what make dist left: bills of materials, licences, and the arm64 head emulated against the amd64 tail (needs qemu)
	@CARGO="$(CARGO)" target/dist-tools/venv/bin/python tests/deploy/artifacts.py
	@tests/deploy/emulated.sh || [ $$? = 77 ]

test-packages: ## install, start, upgrade, remove and purge what make dist left in a Debian of its own (needs root, debootstrap, systemd-nspawn)
	@tests/deploy/packages.sh || [ $$? = 77 ]

test-containers: ## build and run the images, from what make dist left (needs podman; root and debootstrap, or BASE=IMAGE)
	@tests/deploy/containers.sh || [ $$? = 77 ]

test-reproducible: ## build the tail twice in different folders and compare the bytes
	@CARGO="$(CARGO)" PYTHON="$(PYTHON)" tests/deploy/reproducible.sh

clean: ## remove what was built and fetched
	$(CARGO) clean
	rm -rf .runtime demo-out evaluate-out bench-out dist-out
