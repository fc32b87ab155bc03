# LesionMap. `make` lists what there is.

PYTHON ?= python3
LOCK := envs/requirements.lock
VENV := .venv
BIN := $(VENV)/bin
BENCH_VENV := .venv-bench
BENCH_PIP := $(BIN)/pip --python $(BENCH_VENV)/bin/python install --quiet --no-deps --no-build-isolation
DEMO_DIR ?= demo
CORES ?= 2
BENCH_SLIDES := $(if $(wildcard ../shared/data/slides),,$(DEMO_DIR)/slides.tsv)

SNAKEMAKE := $(BIN)/snakemake --cores $(CORES)
DEMO_RUN := $(SNAKEMAKE) --directory $(DEMO_DIR) --configfile config/recommended.yaml config/demo.yaml

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(VENV)/installed: $(LOCK)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "LesionMap needs Python 3.11 or newer; run: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes --no-deps --requirement $(LOCK)
	touch $@

.PHONY: setup
setup: $(VENV)/installed ## create .venv from the lock

$(DEMO_DIR)/slides.tsv: $(VENV)/installed
	PYTHONPATH=scripts $(BIN)/python -m lesionmap.demo.cohort $(DEMO_DIR)

.PHONY: demo
demo: $(VENV)/installed $(DEMO_DIR)/slides.tsv ## run the whole workflow on the embedded cohort, into demo/results
	$(DEMO_RUN)
	@cat $(DEMO_DIR)/results/conclusion.txt

.PHONY: test
test: $(VENV)/installed ## run the unit and workflow tests
	$(BIN)/pytest

.PHONY: mutants
mutants: $(VENV)/installed ## mutate the pure modules and list what no test notices, in about 10 minutes; N=50 SEED=0
	$(BIN)/python tests/mutants.py --count $(or $(N),50) --seed $(or $(SEED),0)

# What Debian has and pip has not: is installed where root runs make, else asked for.
define needs
command -v $(1) >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -qq --no-install-recommends $(2) >/dev/null; } \
	|| { echo '$(1) is missing; install it: apt-get install $(2)' >&2; exit 1; }
endef

.PHONY: chromium graphviz slurm
chromium:
	@$(call needs,chromium,chromium fonts-dejavu-core)
graphviz:
	@$(call needs,dot,graphviz)
slurm:
	@$(call needs,slurmctld,slurmctld slurmd slurmdbd slurm-client munge mariadb-server)

.PHONY: test-browser
test-browser: chromium demo ## test the report of the demo in a real browser; as root, installs Chromium where it is missing
	DEMO_DIR=$(DEMO_DIR) $(BIN)/pytest -n 0 tests/browser

.PHONY: test-reruns
test-reruns: $(VENV)/installed ## change, exchange, move and mend files, settings and code, retrain and prune, in real runs, in about 15 minutes
	$(BIN)/pytest tests/workflow/reruns

.PHONY: test-experiments
test-experiments: $(VENV)/installed ## compare variants over folds and seeds, and add to them, in real runs, in about 6 minutes
	$(BIN)/pytest tests/workflow/experiments

.PHONY: test-faults
test-faults: $(VENV)/installed ## kill, fill the disk, set clocks wrong at each rule, as root for the disks, in about 10 minutes
	$(BIN)/pytest tests/workflow/faults

.PHONY: test-storage
test-storage: $(VENV)/installed ## test slides on an S3-compatible server and a web server, both started for it, in about 4 minutes
	$(BIN)/pytest -n 0 tests/storage

.PHONY: test-slurm
test-slurm: slurm $(VENV)/installed ## test the cluster profile on a SLURM that is set up for it, as root, in about 8 minutes
	$(BIN)/pytest -n 0 tests/slurm

.PHONY: pictures
pictures: chromium graphviz demo ## take the pictures of the README from the demo's report
	mkdir -p docs/pictures logs
	PYTHONPATH=tests/browser $(BIN)/python docs/pictures.py $(DEMO_DIR)/results/report docs/pictures
	$(DEMO_RUN) --rulegraph > logs/rules.dot
	sed 's/color = "[^"]*", //' logs/rules.dot | tred | dot -Tsvg -Nfontname=sans-serif -Nfontsize=12 -Nheight=.4 -Npenwidth=1.2 \
		-Epenwidth=1.2 -Earrowsize=.8 -Granksep=.3 -o docs/pictures/rules.svg

.PHONY: lint
lint: $(VENV)/installed ## check style, types, the workflow, declared dependencies and licences
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/mypy scripts/lesionmap
	$(BIN)/snakemake --lint
	$(BIN)/deptry scripts
	$(BIN)/reuse lint --lines

.PHONY: real
real: $(VENV)/installed ## run the workflow on the real slides of ../shared/data, into results/
	$(SNAKEMAKE) --configfile tests/real/config.yaml
	@cat results/conclusion.txt
	$(BIN)/pytest -n 0 tests/real

$(BENCH_VENV)/installed: envs/bench.txt $(VENV)/installed
	$(BIN)/python -m venv --clear --without-pip $(BENCH_VENV)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$($(BENCH_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/lesionmap.pth"
	$(BENCH_PIP) --requirement envs/bench.txt || sed 's/#.*//' envs/bench.txt | xargs -n 1 $(BENCH_PIP) || true
	touch $@ # what could not be installed the benchmark reports

.PHONY: bench-stain
bench-stain: $(BENCH_VENV)/installed $(BENCH_SLIDES) ## time stain normalisation against other packages, in about 5 minutes
	PYTHONPATH=scripts $(BENCH_VENV)/bin/python benchmarks/stain.py

.PHONY: bench-tiles
bench-tiles: $(BENCH_VENV)/installed ## time tile extraction on the real slides of ../shared/data, in about 5 minutes
	PYTHONPATH=scripts $(BENCH_VENV)/bin/python benchmarks/tiles.py

.PHONY: bench-tissue
bench-tissue: $(BENCH_VENV)/installed ## compare tissue detection with boxes on the real slides of ../shared/data, in about 2 minutes
	PYTHONPATH=scripts $(BENCH_VENV)/bin/python benchmarks/tissue.py

.PHONY: bench-train
bench-train: $(BENCH_VENV)/installed ## time a training step against the textbook's way, in about 10 minutes
	PYTHONPATH=scripts $(BENCH_VENV)/bin/python benchmarks/train.py

.PHONY: bench-infer
bench-infer: $(BENCH_VENV)/installed ## time inference on a whole slide of ../shared/data, in about 15 minutes
	PYTHONPATH=scripts $(BENCH_VENV)/bin/python benchmarks/infer.py

.PHONY: gpu-wheels
gpu-wheels: ## download what gpu-check needs, into gpu-wheels/, for a machine without network; GPU_PYTHON_VERSION=3.12
	grep -oE '^[^ ]+==[^ ]+' $(LOCK) | $(PYTHON) -m pip download --no-deps --only-binary=:all: \
		--python-version $(or $(GPU_PYTHON_VERSION),3.12) --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
		--requirement envs/gpu_check.txt --constraint /dev/stdin --dest gpu-wheels

.PHONY: gpu-check
gpu-check: ## test and time training and inference on one GPU, in at most 8 minutes; GPU_PYTHON=python3 (benchmarks/README.md)
	PYTHONPATH=scripts $(or $(GPU_PYTHON),python3) benchmarks/gpu_check.py $(GPU_OPTIONS)

.PHONY: bench-sparse
bench-sparse: $(VENV)/installed ## map a slide of 200,000 × 200,000 px, mostly glass, in about 2 minutes
	PYTHONPATH=scripts $(BIN)/python benchmarks/sparse_slide.py

.PHONY: bench-coverage
bench-coverage: $(VENV)/installed ## simulate how often 95 % intervals contain the truth, in about 20 minutes
	PYTHONPATH=scripts $(BIN)/python benchmarks/interval_coverage.py

.PHONY: bench-exports
bench-exports: $(VENV)/installed ## time the exports of a map with 100,000 lesions, in about 3 minutes
	PYTHONPATH=scripts $(BIN)/python benchmarks/exports.py

.PHONY: bench-report
bench-report: chromium demo ## time the page of 200 slides (or SLIDES=2000) in a browser, in about a minute
	PYTHONPATH=scripts:tests/browser $(BIN)/python benchmarks/report.py $(DEMO_DIR)/results $(if $(SLIDES),--slides $(SLIDES))

.PHONY: bench-scale
bench-scale: $(VENV)/installed ## time Snakemake's plans of 100 to 10,000 slides (or SLIDES="1000"), in about 30 minutes
	PYTHONPATH=scripts $(BIN)/python benchmarks/scale.py $(if $(SLIDES),--slides $(SLIDES)) $(if $(FOLDER),--folder $(FOLDER))

ABLATION_STORES := $(foreach n,1 2 3 4,results/tiles/camelyon_$(n).h5)
.PHONY: ablation
ablation: $(VENV)/installed ## train low, high and both views on the CAMELYON tiles of ../shared/data; SEEDS="0 1 2"
	mkdir -p ablation
	cp benchmarks/ablation.tsv ablation/slides.tsv
	$(SNAKEMAKE) --directory ablation --configfile benchmarks/ablation.yaml -- $(ABLATION_STORES)
	PYTHONPATH=scripts $(BIN)/python benchmarks/ablation.py $(ABLATION_STORES:%=ablation/%) \
		--folder ablation/results/ablation --seeds $(or $(SEEDS),0) $(if $(WEIGHTS),--weights $(WEIGHTS))

BOTH_SEEDS := 0,1
.PHONY: cv
cv: $(VENV)/installed ## cross-validate the recommended recipe, both views alone and jointly, on ../shared/data/cam8, into cv/; SEEDS="0,1" UPDATES=1
	mkdir -p cv/results/experiments
	cp benchmarks/cv.tsv cv/slides.tsv
	cp -n benchmarks/cv_folds.tsv cv/results/experiments/folds.tsv
	$(SNAKEMAKE) --directory cv --configfile config/recommended.yaml benchmarks/cv.yaml $(if $(UPDATES),benchmarks/cv_updates.yaml) \
		--set-threads train_fold=1 map_held_out=1 \
		--config 'experiments={seeds: [$(or $(SEEDS),$(BOTH_SEEDS))]}' -- experiments
	@cat cv/results/experiments/headline.txt
	@$(BIN)/python benchmarks/cv.py cv/results/experiments

.PHONY: format
format: $(VENV)/installed ## format Python and Snakemake files
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

.PHONY: lock
lock: ## resolve the dependencies of pyproject.toml anew (needs uv)
	uv pip compile --quiet --extra dev --extra staintools --python-version 3.11 \
		--python-platform x86_64-manylinux_2_28 --generate-hashes --no-header --output-file $(LOCK) pyproject.toml
	$(PYTHON) envs/mirror.py

.PHONY: clean
clean: ## remove the demo's slides and results
	rm -rf $(DEMO_DIR)
