# Every target makes its own virtual environment when there is none: `make run` and `make test` work on a fresh clone.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
USABLE := $(VENV)/.usable
READY  := $(VENV)/.ready

# Left out: ASYNC9xx and ASYNC109 (trio's own guarantees, not for applications), ASYNC113 (our context managers start tasks on
# purpose that need not be ready), ASYNC124 (async because an interface or pytest-trio wants it). It is slow (10 ms a line) and looks
# into functions that are async: files without one are left out.
FLAKE8_ASYNC := --disable ASYNC9,ASYNC109,ASYNC113,ASYNC124 \
	--startable-in-context-manager run,watch,on_signal,run_forever,serve,sample_loop_lag,watch_tokens

.PHONY: help run test check format bench docs pictures soak clean
.DEFAULT_GOAL := help

help:
	@echo "make run       the daemon with a demo run to watch"
	@echo "make test      every test that needs no account"
	@echo "make check     format, lint, types, import direction, docs"
	@echo "make bench     benchmarks, side by side with peers"
	@echo "make docs      regenerate the generated reference pages"
	@echo "make pictures  make the README's pictures again, from the real program"
	@echo "make soak      the long tests"
	@echo "make clean     remove what the other targets made"

# pip 25.1 is the first that reads [dependency-groups].
$(USABLE): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(READY): $(USABLE)
	$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

run: $(USABLE)
	$(BIN)/agentstream serve --demo

# Two at a time: half of what the tests do is waiting for daemons. Tests of a file stay together and share what it opens.
test: $(READY)
	$(BIN)/python -m pytest -m 'not soak' -n 2 --dist loadfile $(ARGS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	git grep -lzwE "async (def|with|for)" -- "*.py" | xargs -0 -n 25 -P 2 $(BIN)/flake8-async $(FLAKE8_ASYNC)
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py tests/test_docs.py

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The SDK from source: its wheels have the whole agent in them. What can't be installed is named as absent.
$(VENV)/.bench: $(READY)
	$(BIN)/python -m pip install --quiet --no-binary claude-agent-sdk --group bench || echo 'some peers are absent'
	@touch $@

bench: $(VENV)/.bench
	$(BIN)/python -m bench

soak: $(READY)
	$(BIN)/python -m pytest -m soak $(ARGS)

docs: $(READY)
	$(BIN)/python -m agentstream.reference docs

pictures: $(READY)
	$(BIN)/python -m tests.pictures.page
	$(BIN)/python -m tests.pictures.recording

clean:
	rm -rf $(VENV) .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
