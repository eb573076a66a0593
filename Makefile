PYTHON ?= .venv/bin/python

.PHONY: check format lint types test docs

check: lint types test

format:
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

lint:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .

# An editable install is invisible to mypy; a link gives the package its import name.
types:
	mkdir -p build/types && ln -sfn ../.. build/types/fusebench
	MYPYPATH=build/types $(PYTHON) -m mypy -p fusebench.methods -p fusebench.benchmarks -p fusebench.study \
		-m fusebench -m fusebench.errors -m fusebench.testing -m fusebench.run_bench -p docs.generator

test:
	$(PYTHON) -m pytest

# Warnings, among them links that lead nowhere, are errors. No network.
docs:
	$(PYTHON) -m sphinx -W --keep-going --quiet -b html docs build/docs
