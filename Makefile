# The few commands people type; CI calls the same ones.
PYTHON ?= python3
WHEELS ?= ../shared/wheels
VENV ?= .venv
BIN = $(VENV)/bin
DEMO ?= examples/fashion-cnn
DEMO_PORT ?= 8080
SOAK ?= 600
# A cluster: a program that builds images onto its node (`image`) and runs commands in its network (`exec`). Without one, kind; see docs/cluster.md.
CLUSTER ?= ../shared/cluster/cluster
INSIDE = $(if $(wildcard $(CLUSTER)),$(CLUSTER) exec --,docs/kind/inside)
SHELL = /bin/bash
.ONESHELL:
.SHELLFLAGS = -euo pipefail -c
.PHONY: setup data demo test test-slow lint schema docs wheel bench bench-small bench-answers bench-engines bench-serving bench-serving-small bad-requests soak images test-cluster measure-cluster measure-kills cluster-demo clean

setup: $(VENV)/.done  ## make the environment

$(VENV)/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	export PIP_FIND_LINKS="$$(test -d $(WHEELS) && realpath $(WHEELS) || echo $${PIP_FIND_LINKS:-})"
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

data: data/fashion-mnist/.done  ## put Fashion-MNIST into data/ (FASHION_MNIST=folder to take it from there)

data/fashion-mnist/.done: $(VENV)/.done
	$(BIN)/python examples/fetch_fashion_mnist.py data/fashion-mnist $(if $(FASHION_MNIST),--source $(FASHION_MNIST))
	touch $@

demo: setup data  ## data to answer: run the pipeline, serve the package, ask it once
	@$(BIN)/boatyard run $(DEMO)
	PATH="$(abspath $(BIN)):$$PATH" examples/ask.sh $(DEMO) $(DEMO_PORT)

test: setup  ## the fast tests
	@$(BIN)/python -m pytest

test-slow: setup data  ## the slow ones
	@$(BIN)/python -m pytest -m slow

lint: setup  ## style and types
	@$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	rm -rf build/types && mkdir -p build/types
	cp -r boatyard build/types/boatyard
	cp -r components pipelines serving build/types/boatyard/
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p boatyard

schema: setup  ## the project file's JSON schema and reference
	@$(BIN)/boatyard schema -o boatyard/project/boatyard.schema.json
	$(BIN)/python docs/reference.py

wheel: setup  ## build/dist
	@$(BIN)/python -m build -q --outdir build/dist

bench: setup data  ## the measures, as tables: needs a quiet machine, a trained examples/fashion-cnn and 9 GB of disk
	@$(BIN)/python benchmarks/help_time.py
	$(BIN)/python benchmarks/step_overhead.py --steps 20 --rounds 5
	$(BIN)/python benchmarks/training_speed.py
	$(BIN)/python benchmarks/preprocess_memory.py --gigabytes 4
	$(MAKE) bench-answers

bench-serving: setup data  ## this server against its peers, 25 minutes: needs wrk and h2load, a quiet machine and the network once
	@$(BIN)/python -m benchmarks.serving

bench-serving-small: setup data  ## the same, three minutes, against KServe alone and with floors, for CI
	@$(BIN)/python -m benchmarks.serving --small

bench-answers: setup  ## the served answers against the report's, every test row (after make demo)
	@package=$$($(BIN)/boatyard show $(DEMO) --path)
	dataset=$$(ls -d $(DEMO)/runs/2*/artifacts/preprocess/dataset | tail -1)
	$(BIN)/python benchmarks/answers.py "$$package" "$$dataset"

bench-engines: setup  ## ONNX Runtime beside OpenVINO with PACKAGE (the demo's), paired
	@$(BIN)/python benchmarks/engines.py "$${PACKAGE:-$$($(BIN)/boatyard show $(DEMO) --path)}"

bad-requests: setup  ## 100 000 generated mistakes: each refused, none in the way of others (after make demo)
	@$(BIN)/python benchmarks/bad_requests.py "$$($(BIN)/boatyard show $(DEMO) --path)"

soak: setup  ## ten minutes of mixed load: does the server's memory stay flat? (after make demo)
	@$(BIN)/python benchmarks/soak.py "$$($(BIN)/boatyard show $(DEMO) --path)" $(SOAK)

bench-small: setup data  ## the same, small, for CI
	@$(BIN)/python benchmarks/help_time.py
	$(BIN)/python benchmarks/step_overhead.py --steps 5 --rounds 1
	$(BIN)/python benchmarks/training_speed.py --rows 6400 --repeats 1
	$(BIN)/python benchmarks/preprocess_memory.py
	$(MAKE) bench-answers
	$(MAKE) soak SOAK=60

images:  ## boatyard/serve:dev and boatyard/train:dev onto the cluster's node
	@for target in serve train; do
	    if [ -x "$(CLUSTER)" ]; then
	        $(CLUSTER) image . --target $$target -t boatyard/$$target:dev
	    else
	        docker build -f Containerfile --target $$target -t boatyard/$$target:dev .
	        kind load docker-image boatyard/$$target:dev --name boatyard
	    fi
	done

test-cluster: setup  ## the tests on a cluster that has KServe, Trainer and an S3 store (after make images)
	@$(INSIDE) $(BIN)/python -m pytest -m cluster

measure-cluster: setup  ## rolling five times there and back under load, 1 → 3 → 1 pods, a pod's start (after make images)
	@ROLLS=5 $(INSIDE) $(BIN)/python -m pytest -m cluster tests/cluster/test_rollouts.py -s

measure-kills: setup  ## 20 kills of a training's pods at random moments; the weights must be an unbroken run's (after make images)
	@KILLS=20 $(INSIDE) $(BIN)/python -m pytest -m cluster tests/cluster/test_training.py -k killed -s

cluster-demo: setup images  ## data to an endpoint that scales, on the cluster: TrainJob, S3, plan, deploy, curl, load
	@PATH="$(abspath $(BIN)):$$PATH" $(INSIDE) examples/cluster_demo.sh

clean:  ## remove what was made
	rm -rf build .venv data
