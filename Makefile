# The tasks of this repository. `make run` and `make test` are the two that matter.

PYTHON ?= python3
CARGO ?= cargo
BINARY := $(or $(CARGO_TARGET_DIR),target)/release/tidegate
DEMO := $(dir $(BINARY))demo

.PHONY: help run demo rollout-demo test setup build profiles lint fuzz bench bench-quick clean

help: ## Show the tasks
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -ts '	'

run: setup build ## Get ONNX Runtime and the demo models, build (minutes, the first time), and serve models/
	$(BINARY) serve --config config/tidegate.toml

demo: setup build ## Replay the car-loan data and watch the monitor find the drift
	$(PYTHON) scripts/fetch.py data
	$(DEMO) --gateway $(BINARY)

rollout-demo: setup build ## Roll out a bad version, which takes itself back, and a good one
	$(PYTHON) scripts/fetch.py data
	TIDEGATE_BINARY=$(BINARY) $(PYTHON) examples/rollout_demo.py

test: ## Everything that CI runs
	scripts/test.sh

setup: ## Fetch the pinned ONNX Runtime and the file-type model (ORT_DYLIB_PATH wins when set)
	@test -n "$(ORT_DYLIB_PATH)" || $(PYTHON) scripts/fetch.py runtime
	@$(PYTHON) scripts/fetch.py magika

# The demo is built with the gateway, in one invocation: as an example it would need the packages of the tests too, whose
# features differ, and everything would be compiled twice.
build: ## Build the release binary, and the demo's
	@test -x $(BINARY) || printf '%s\n' \
		'Building tidegate, once: 310 packages, 4 minutes on two idle cores, 700 MB of disk in target/.' \
		'The last of them, tidegate itself, takes more than a minute without a line.'
	$(CARGO) build --release --locked --bins

profiles: setup build ## Make the reference profiles of models/car_loan again
	$(PYTHON) scripts/fetch.py data
	for version in 1 2; do $(BINARY) profile models/car_loan/$$version \
		--data .artifacts/data/synthetic_car_loan_reference.csv; done

lint: ## Format, clippy, licences, docs
	scripts/test.sh lint

fuzz: ## Give each reader of foreign bytes a minute of libFuzzer (FUZZ_SECONDS, FUZZ_TARGETS)
	scripts/fuzz.sh

bench: setup ## Run all benchmarks: a quarter of an hour on an idle machine with two cores
	$(CARGO) bench --locked --bench '*'
	$(PYTHON) benches/end_to_end.py
	$(PYTHON) benches/overload.py
	$(PYTHON) benches/target_latency.py
	$(PYTHON) benches/memory.py
	$(PYTHON) benches/load_interference.py

bench-quick: setup ## One short round of the end-to-end benchmark
	$(PYTHON) benches/end_to_end.py --quick

clean: ## Remove what was built (not what was fetched)
	$(CARGO) clean
