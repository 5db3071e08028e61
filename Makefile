# narrows. `make demo` and `make test` need Rust, Python 3 with pip, a C compiler and make; nothing else.
# Everything is built in one profile and one feature set, so that tract is compiled once.

CARGO   ?= cargo
PYTHON  ?= python3
BUNDLE  ?= models/bundles/lite2
TASKS   ?= classify segment
BIN     := $(or $(CARGO_TARGET_DIR),target)/release
BUILD   := --release --locked --workspace

# The shipped photos that suit a task, where SOURCE names no others.
SOURCE_classify := bench/photos
SOURCE_segment  := bench/photos/road

.DEFAULT_GOAL := help
.PHONY: help demo test bench figures test-arm test-python miri mutate evaluate micro bench-codec soak fuzz fmt audit runtime runtime-cpu runtime-gpu build clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

demo: runtime ## photos through a split network: SOURCE=DIR for your own, TASKS=classify or TASKS=segment for one task
	@echo "Compiling narrows-head, narrows-tail and the demo: some minutes the first time, on two cores about five."
	@$(CARGO) build --release --locked -p narrows-head -p narrows-tail -p narrows-demo
	@$(BIN)/narrows-demo --bundle $(BUNDLE) --out demo-out $(foreach task,$(TASKS),--$(task) "$(or $(SOURCE),$(SOURCE_$(task)))")

test: runtime ## format, lints, docs and every test
	$(CARGO) fmt --all --check
	$(CARGO) build $(BUILD) --all-targets
	$(CARGO) test $(BUILD)
	$(CARGO) clippy $(BUILD) --all-targets --quiet -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc $(BUILD) --no-deps --quiet

bench: build ## local, offload or split over a ladder of links, into bench-out: DATA=DIR for labelled data, FULL=1 for all
	@$(BIN)/narrows-bench compare --bundle $(BUNDLE) --out bench-out --source "$(or $(SOURCE),bench/photos/**/*)" \
		$(if $(DATA),--data "$(DATA)") $(if $(FULL),--full)

# The version of Vega-Lite that vl-convert-python draws with is the one in bench/vendor.
FIGURE   := latency-classify-narrowband
figures: build demo ## make the documents' pictures again: the demo's answer, and a chart of docs/compare.json (installs vl-convert-python)
	@cp demo-out/highway.overlay.png docs/answer.png
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && $(PYTHON) -m venv "$$folder/venv" \
		&& "$$folder/venv/bin/pip" install --quiet vl-convert-python==1.9.0.post1 \
		&& $(BIN)/narrows-bench compare --from docs/compare.json --out "$$folder" \
		&& "$$folder/venv/bin/python" -c 'import sys, vl_convert; print(vl_convert.vegalite_to_svg(open(sys.argv[1]).read(), vl_version="6.4"))' \
			"$$folder/charts/$(FIGURE).vl.json" > docs/compare.svg

evaluate: build ## accuracy and bytes on labelled data: DATA=DIR holds imagenet500.tar and camvid-val.tar, LOG=CSV gets a line
	@test -n "$(DATA)" || { echo "make evaluate DATA=DIR: which folder holds imagenet500.tar, imagenet500.csv and camvid-val.tar?"; exit 2; }
	@mkdir -p evaluate-out
	$(BIN)/narrows-bench evaluate --bundle $(BUNDLE) --imagenet $(DATA)/imagenet500.tar \
		--labels $(DATA)/imagenet500.csv --camvid $(DATA)/camvid-val.tar --all-levels \
		--json evaluate-out/evaluate.json $(if $(LOG),--log $(LOG))

micro: build ## speed of the int8 networks, of ONNX Runtime and of JPEG encoders, in one run
	@mkdir -p evaluate-out
	$(BIN)/narrows-bench micro --bundle $(BUNDLE) --json evaluate-out/micro.json

ARM      := aarch64-unknown-linux-gnu
ARM_RUN  ?= qemu-aarch64-static -L /usr/aarch64-linux-gnu
test-arm: ## codec and int8 kernels on emulated ARM, with dot product and without (needs a cross compiler and qemu)
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

bench-codec: build ## bytes and speed of the codec and of other coders: DATA=DIR holds photos-00.tar to photos-02.tar
	@mkdir -p evaluate-out
	$(BIN)/narrows-bench codec --bundle $(BUNDLE) $(if $(DATA),--photos $(DATA)/photos-00.tar --photos $(DATA)/photos-01.tar \
		--photos $(DATA)/photos-02.tar) --json evaluate-out/codec.json

test-python: ## build codec/python and codec/reference into a temporary environment and run their tests
	@$(PYTHON) -c 'import sys, venv; assert sys.version_info >= (3, 10)' 2>/dev/null \
		|| { echo "test-python: Python 3.10 or later with venv is needed ($(PYTHON) is not)"; exit 2; }
	@command -v $(CARGO) >/dev/null || { echo "test-python: cargo is needed"; exit 2; }
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && $(PYTHON) -m venv "$$folder" \
		&& CARGO_TARGET_DIR="$(CURDIR)/target/python" "$$folder/bin/pip" install --quiet './codec/python[test]' \
			'./codec/reference[test]' \
		&& "$$folder/bin/pytest" codec/python && "$$folder/bin/pytest" codec/reference

FRAMES ?= 100000
soak: build ## answer FRAMES=100000 photos from a FIFO on this device and check that its memory stays flat
	FRAMES=$(FRAMES) $(CARGO) test $(BUILD) --test endless -- --nocapture memory

SECONDS_EACH ?= 600
fuzz: ## run every fuzz target SECONDS_EACH=600 seconds (needs cargo-fuzz and a nightly toolchain)
	for target in $$($(CARGO) +nightly fuzz list --fuzz-dir tests/fuzz); do \
		$(CARGO) +nightly fuzz run --fuzz-dir tests/fuzz $$target -- -max_total_time=$(SECONDS_EACH) || exit 1; done

fmt: ## format every crate
	$(CARGO) fmt --all

audit: ## licences, bans and, where its database can be reached, advisories (needs cargo-deny)
	@command -v cargo-deny >/dev/null || { echo "cargo-deny is not installed: cargo install --locked cargo-deny"; exit 2; }
	$(CARGO) deny --locked check licenses bans sources
	@$(CARGO) deny --locked fetch db >/dev/null 2>&1 && $(CARGO) deny --locked check advisories \
		|| echo "advisories: not checked (the advisory database cannot be reached)"

runtime: ## unpack ONNX Runtime into .runtime: the build that is there already, else the one for CPUs
	@$(PYTHON) tail/runtime/fetch.py .runtime

runtime-cpu: ## unpack ONNX Runtime for CPUs into .runtime; stays until changed
	@$(PYTHON) tail/runtime/fetch.py --build cpu .runtime

runtime-gpu: ## unpack ONNX Runtime for CUDA 13 into .runtime (256 MB); stays until changed
	@$(PYTHON) tail/runtime/fetch.py --build gpu .runtime

build: runtime ## every program, into target/release
	$(CARGO) build $(BUILD)

clean: ## remove what was built and fetched
	$(CARGO) clean
	rm -rf .runtime demo-out evaluate-out bench-out
