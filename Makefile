# A new machine needs Python 3.11, pip, venv and make; everything else comes into .venv.
PYTHON ?= python3
# Threads that soon stop spinning while they wait: faster where the machine has other work too (docs/lab-notes.md).
export GOMP_SPINCOUNT ?= 10000
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test test-all test-web check sanitize profile bench fuzz damage kills power load ranks clean

demo: $(READY)
	$(BIN)/python examples/demo.py

test: $(READY)
	$(BIN)/python -m pytest

test-all: $(READY)
	$(BIN)/python -m pytest -m "slow or not slow"

# The page in a browser: needs node, npm, chromium, clang and lld, which .ci/run takes from Debian.
test-web: $(READY)
	cd viewer && npm ci --no-audit --no-fund && npm run check && PYTHON=$(abspath $(BIN)/python) npm test

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The kernels' tests with the address and undefined-behaviour sanitizers; of a copy.
SANITIZERS := -fsanitize=address,undefined -fno-sanitize-recover=all
sanitize: $(READY)
	rm -rf build/sanitize && mkdir -p build/sanitize && cp -r lgsirens tests pyproject.toml README.md build/sanitize
	rm -f build/sanitize/lgsirens/nn/kernels/*.so
	cd build/sanitize/lgsirens/nn/kernels && for set in portable: avx2:-mavx2,-mfma avx512:-mavx512f,-mfma; do \
		gcc -std=gnu11 -g -O2 -ffp-contract=fast $(SANITIZERS) $$(echo $${set#*:} | tr , ' ') -fPIC -shared \
			source/*.c -lm -o _$${set%%:*}.so || exit 1; done
	cd build/sanitize && ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$$(gcc -print-file-name=libasan.so)" \
		../../$(BIN)/python -m pytest -n0 tests/nn/test_kernels.py

profile: $(READY)
	$(BIN)/python benchmarks/floor.py

bench: $(READY)
	$(BIN)/python benchmarks/fit.py
	$(BIN)/python benchmarks/decode.py
	$(BIN)/python benchmarks/crop.py
	$(BIN)/python benchmarks/open.py
	$(BIN)/python benchmarks/fidelity.py
	$(BIN)/python benchmarks/recordings.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/extend.py
	$(BIN)/python benchmarks/seams.py
	$(BIN)/python benchmarks/time_to_quality.py
	$(BIN)/python benchmarks/between.py
	$(BIN)/python benchmarks/large.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/many.py
	$(BIN)/python benchmarks/watching.py
	$(BIN)/python benchmarks/published.py
	$(BIN)/python benchmarks/view.py

# Campaigns that try to break what docs/reliability.md promises, kills, power and load with gcc; longer ones by a budget:
#   make fuzz TRIALS='--minutes 240 --targets media'; make kills TRIALS='--points 5000 --moments 600 --seed 1'
damage kills power load ranks: $(READY)
	$(BIN)/python -m trials.$@ $(TRIALS)

fuzz: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) -e '.[fuzz]'
	$(BIN)/python -m trials.fuzz $(TRIALS)

clean:
	rm -rf .venv out build *.egg-info

# constraints-cpu.txt keeps several GB of CUDA packages away; make it empty on a machine with a GPU:
#   make test CONSTRAINTS=
CONSTRAINTS ?= -c constraints-cpu.txt
$(READY): pyproject.toml setup.py constraints-cpu.txt $(wildcard lgsirens/nn/kernels/source/*)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) -e '.[dev]'
	touch $(READY)
