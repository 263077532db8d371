# Two commands: `make demo` and `make test`. Both make the environment .venv when it is missing or out of date.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
CKPT := runtime/cisi_runtime/weights/small.pt
PHOTO := tests/photos/balloon

.PHONY: demo test parity environment clean

environment: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,openvino,train,eval,bench,rtx,dev]'
	touch $@

# The two exports run side by side, a thread each; their tables follow one after the other.
demo: $(INSTALLED)
	mkdir -p demo
	$(MAKE) --no-print-directory -j2 demo/fp16.log demo/float32.log
	cat demo/fp16.log demo/float32.log
	$(BIN)/cisi-run $(PHOTO).jpg --mask $(PHOTO).mask.png --model demo/small.onnx \
		-o demo/balloon.png --sheet demo/balloon.sheet.png

demo/fp16.log: FORCE
	OMP_NUM_THREADS=1 $(BIN)/cisi-export --ckpt $(CKPT) --fp16 --out demo/small.fp16.onnx > $@ || (cat $@; exit 1)

demo/float32.log: FORCE
	OMP_NUM_THREADS=1 $(BIN)/cisi-export --ckpt $(CKPT) --out demo/small.onnx > $@ || (cat $@; exit 1)

FORCE:

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n auto --dist loadfile

# The ladder of parity checks at full size; some ten minutes.
parity: $(INSTALLED)
	$(BIN)/python -m tests.full_size

clean:
	rm -rf .venv demo build
