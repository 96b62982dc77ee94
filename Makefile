# make demo: install and annotate a clip made from the NASA portrait.  make test: install and run the tests.
# make install: what the tests need, and no more.
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= test,train,jax
CONSTRAINTS ?=
PYTEST ?=

.PHONY: demo install test clean

demo: $(VENV)/.edge
	$(VENV)/bin/calmcam demo --output-dir demo --exist-ok

install: $(VENV)/.$(EXTRAS)

test: install
	$(VENV)/bin/python -m pytest --numprocesses auto --dist worksteal $(PYTEST)

define install
	PYTHON=$(PYTHON) deploy/system_libraries.sh
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e '$(1)'
	touch $@
endef

$(VENV)/.edge: setup.cfg pyproject.toml $(CONSTRAINTS)
	$(call install,.)

$(VENV)/.$(EXTRAS): setup.cfg pyproject.toml $(CONSTRAINTS)
	$(call install,.[$(EXTRAS)])

clean:
	rm -rf $(VENV) build *.egg-info demo
