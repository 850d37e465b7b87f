# Everything a developer does. The first of demo, test, check or bench sets up .venv by itself.
PYTHON ?= python3
ARGS ?=
N ?= 20000
BIN := .venv/bin
OK := .venv/.ok
PIP := $(PYTHON) -m pip --python $(BIN)/python
# Small matrices are faster in one thread, and CPU time is then time of work: the service sets the same.
ONE_THREAD := OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1
COMPILE := $(BIN)/uv pip compile pyproject.toml --quiet --system-certs --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help demo test style check conformance fuzz infeasible kill mutants sim soak bench docs lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

demo: $(OK) ## a simulated day under control, over real Modbus TCP; ARGS="--fast --hours 24 --headless"
	@$(BIN)/derms demo $(ARGS)

test: $(OK) ## all tests; ARGS="-k guard"
	@$(BIN)/pytest $(ARGS)

style: $(OK) ## format, lint, types and layers
	@echo "== ruff format" && $(BIN)/ruff format --check .
	@echo "== ruff check" && $(BIN)/ruff check .
	@echo "== mypy" && $(BIN)/mypy
	@echo "== lint-imports" && $(BIN)/lint-imports --no-logo

check: style ## style, and the fast tests
	@echo "== pytest" && $(BIN)/pytest -m "not slow" $(ARGS)

conformance: $(OK) ## every driver and profile against its simulated device, with the level that each reaches
	@$(BIN)/pytest tests/conformance $(ARGS)

fuzz: $(OK) ## N mutated Modbus frames against the transport, judged by a decoder of its own; N=1000000
	@$(BIN)/python -m tests.fuzz.frames --frames $(N) $(ARGS)

infeasible: $(OK) ## N random measured states to the fleet planner: none without a plan; N=10000
	@$(BIN)/python -m tests.optimize.states --states $(N) $(ARGS)

kill: $(OK) ## gateway and brain killed at random moments under load, ROUNDS times: nothing lost, twice or late; ROUNDS=100
	@$(ONE_THREAD) $(BIN)/python -m tests.kill.run $(if $(ROUNDS),--rounds $(ROUNDS)) $(ARGS)

mutants: $(OK) ## planted faults in our own code: how many do the tests catch, each within 60 s; SAMPLE=10
	@$(BIN)/python -m tests.mutants.run $(if $(SAMPLE),--sample $(SAMPLE)) $(ARGS)

sim: $(OK) ## SEEDS simulated runs of the whole service with everything going wrong, and the fail-the-nth sweep
	@$(ONE_THREAD) $(BIN)/python -m tests.sim.simulate $(if $(SEEDS),--seeds $(SEEDS)) $(ARGS)

soak: $(OK) ## the same for HOURS and SEEDS on the lean tier; what is done already is not done again
	@$(ONE_THREAD) $(BIN)/python -m tests.sim.soak $(if $(HOURS),--hours $(HOURS)) $(if $(SEEDS),--seeds $(SEEDS)) $(ARGS)

bench: $(OK) ## a benchmark: NAME=field, fleet, isolation, plan, scale, solvers, value, forecast, day, emergency, linearise, estimate, territory or grid; its last line is one JSON object
	@test -f "tests/bench/$(NAME).py" || { echo "give NAME, one of:" $(filter-out stage plan_pypsa value_world value_bound,$(basename $(notdir $(wildcard tests/bench/*.py)))); exit 2; }
	@$(ONE_THREAD) $(BIN)/python tests/bench/$(NAME).py $(ARGS)

docs: $(OK) ## docs/site-file.md from the settings in the code
	@$(BIN)/python docs/site_file.py > docs/site-file.md.new && mv docs/site-file.md.new docs/site-file.md

lock: $(OK) ## both lock files; ARGS=--upgrade takes newer versions
	$(COMPILE) $(ARGS) -o requirements.lock
	$(COMPILE) $(ARGS) --extra dev -o requirements-dev.lock

clean: ## remove .venv, caches and what runs left
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist runs
	find derms drivers feeders hil tests -name __pycache__ -prune -exec rm -rf {} +

# Only the hashed lock is ever installed. uv does it fast; pip, which also knows pip's own settings, does it when uv
# cannot be had or cannot reach the package index. The project itself follows with the build backend of the lock.
$(OK): requirements-dev.lock pyproject.toml
	@echo "== setting up .venv (once, and after changes of the lock file)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: PYTHON=...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv --without-pip .venv
	@awk '/^[a-z]/ { file = /^uv==/ ? "uv" : "packages" } file { print > (".venv/" file ".lock") }' requirements-dev.lock
	@echo "== installing the packages of requirements-dev.lock, some 800 MB"
	@$(PIP) install --require-hashes -r .venv/uv.lock \
		&& $(BIN)/uv pip install --system-certs --compile-bytecode --python $(BIN)/python --require-hashes -r .venv/packages.lock \
		|| { echo "== uv could not do it; pip does, which takes longer" \
		&& $(PIP) install --require-hashes -r .venv/packages.lock; }
	@echo "== installing this project"
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
