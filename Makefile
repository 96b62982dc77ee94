# make demo: install and annotate a clip made from the NASA portrait.  make test: install and run the tests.
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= test,train,jax
CONSTRAINTS ?=
PIP_FLAGS := $(if $(CONSTRAINTS),-c $(CONSTRAINTS))

.PHONY: demo test install clean

demo: EXTRAS =
demo: install
	$(VENV)/bin/calmcam demo --output-dir demo --exist-ok

test: install
	$(VENV)/bin/python -m pytest

install: $(VENV)/.installed-$(or $(EXTRAS),edge)

$(VENV)/.installed-%: setup.cfg pyproject.toml $(CONSTRAINTS)
	deploy/system_libraries.sh
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet $(PIP_FLAGS) -e '.$(if $(EXTRAS),[$(EXTRAS)])'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info demo
