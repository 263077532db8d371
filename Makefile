# make demo   environment, exports with parity, a photograph inpainted on the CPU
# make test   environment, lint, types, all tests
# make check  the same with the quick tests alone
# make fuzz   property tests with new random examples for MINUTES (10), and INPUTS (10000) damaged files
# make docs   the documentation as a site, in site/
# make triton NVIDIA's Triton in .venv/triton, for the tests that need a real one
# make parity float32 and float16 parity at full size
# Each makes the environment .venv when it is missing or out of date.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
CKPT := runtime/cisi_runtime/weights/small.pt
PHOTO := tests/photos/balloon

.PHONY: demo test check fuzz docs lint triton parity environment clean

environment: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[cpu,openvino,train,eval,bench,rtx,serve,tracing,storage,hub,ray,watch,parquet,docs,dev]'
	touch $@

# The two exports run side by side, a thread each. Their whole tables go to files; what matters is printed.
demo: $(INSTALLED)
	@mkdir -p demo
	@$(MAKE) --no-print-directory --silent -j2 demo/small.fp16.txt demo/small.txt
	@tail -n 5 demo/small.txt | head -n 4
	@tail -n 5 demo/small.fp16.txt | head -n 4
	@$(BIN)/cisi-run $(PHOTO).jpg --mask $(PHOTO).mask.png --model demo/small.onnx \
		-o demo/balloon.png --sheet demo/balloon.sheet.png
	@echo "All comparisons: demo/small.txt, demo/small.fp16.txt. Original, hole, fill without detail, result: demo/balloon.sheet.png"

demo/small.fp16.txt: FORCE
	OMP_NUM_THREADS=1 $(BIN)/cisi-export --ckpt $(CKPT) --fp16 --verbose --out demo/small.fp16.onnx > $@ || (cat $@; exit 1)

demo/small.txt: FORCE
	OMP_NUM_THREADS=1 $(BIN)/cisi-export --ckpt $(CKPT) --verbose --out demo/small.onnx > $@ || (cat $@; exit 1)

FORCE:

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# One process more than there are cores: some tests wait, for services, clusters and signals.
TEST_PROCESSES ?= $(shell expr $$($(PYTHON) -c 'import os; print(os.cpu_count())') + 1)
test: $(INSTALLED) lint
	$(BIN)/pytest -n $(TEST_PROCESSES) --dist worksteal

# Without the tests that train, export, build or start many processes.
check: $(INSTALLED) lint
	$(BIN)/pytest -n auto --dist worksteal -m "not slow"

MINUTES ?= 10
INPUTS ?= 10000
fuzz: $(INSTALLED)
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES) --inputs $(INPUTS)

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Its wheel asks for an older NumPy, so it lies in a folder of its own.
triton: $(INSTALLED)
	test -d .venv/triton || $(BIN)/python -m pip install --quiet --no-deps --target .venv/triton nvidia-pytriton==0.7.0

parity: $(INSTALLED)
	$(BIN)/python -m benchmarks.full_size_parity

clean:
	rm -rf .venv demo build site
