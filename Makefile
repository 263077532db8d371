# Two commands: `make demo` and `make test`. Both make the environment .venv when it is missing or out of date.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
CKPT := runtime/cisi_runtime/weights/small.pt
PHOTO := tests/photos/balloon

.PHONY: demo test environment clean

environment: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,train,eval,rtx,dev]'
	touch $@

demo: $(INSTALLED)
	mkdir -p demo
	$(BIN)/cisi-export --ckpt $(CKPT) --fp16 --out demo/small.fp16.onnx
	$(BIN)/cisi-export --ckpt $(CKPT) --out demo/small.onnx
	$(BIN)/cisi-run $(PHOTO).jpg --mask $(PHOTO).mask.png --model demo/small.onnx \
		-o demo/balloon.png --sheet demo/balloon.sheet.png --repeat 9

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

clean:
	rm -rf .venv demo build
