#!/bin/bash
# Makes .venv from requirements.txt (NVIDIA GPU) or requirements-cpu.txt (none); run by `make setup`.
set -euo pipefail
cd "$(dirname "$0")"
PATH=${PATH//"$PWD/.venv/bin:"/} # an activated .venv must not build itself
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
# What an image or a shell set for another Python's packages must not decide about .venv.
unset PIP_CONSTRAINT PIP_BUILD_CONSTRAINT PIP_REQUIREMENT PIP_TARGET PIP_PREFIX PIP_ROOT PIP_USER PIP_DRY_RUN PIP_NO_BINARY \
    PIP_REQUIRE_HASHES PIP_REQUIRE_VIRTUALENV PYTHONHOME PYTHONPATH CDPATH
stop() { echo "make setup: $*" >&2; exit 1; }
trap 'stop "interrupted; make setup starts it over."' INT # pip turns Ctrl-C into an ordinary failure
# Byte-compiling every module would double the time; Python does it for those that are used.
install_wheels() { .venv/bin/python -m pip install --no-deps --only-binary :all: --no-compile "$@"; }

# One that is here and fails, or hangs, counts as no GPU, as in grpo_kit/machine/packages.py.
if gpus=$(timeout 60 nvidia-smi -L 2>/dev/null) && grep -q '^GPU [0-9]' <<<"$gpus"; then
    file=requirements.txt disk_gb=20 why="an NVIDIA GPU is here"
else
    file=requirements-cpu.txt disk_gb=6 why="no NVIDIA GPU is here (nvidia-smi lists none)"
fi

# The stamp is written last, so a .venv without it is unfinished. It names the folder because a venv cannot be moved.
stamp="$PWD $file $(cksum <"$file")"
if [ "$(cat .venv/setup-stamp 2>/dev/null)" = "$stamp" ] && .venv/bin/python -c '' 2>/dev/null; then
    echo ".venv is up to date with $file"
    exit
fi
[ ! -e .venv ] || [ -e .venv/setup-stamp ] ||
    stop ".venv was not made by make setup: move it away and run make setup again."

python=
for candidate in python3 python3.11 python3.12 python3.13; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
[ "$python" ] ||
    stop "Python 3.11, 3.12 or 3.13 is needed, and python3 here is $(python3 --version 2>/dev/null || echo missing): install one of them and run make setup again."
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    stop "$python lacks its venv module: install it (on Debian and Ubuntu: apt install python3-venv) and run make setup again."
[ "$(uname -sm)" = "Linux x86_64" ] ||
    stop "the packages are built for Linux on x86-64, and this is $(uname -sm): use such a machine, or Colab."
if [ $file = requirements.txt ]; then
    drivers=$(timeout 60 nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null) || drivers=nothing
    driver=${drivers%%$'\n'*} # a line for each GPU
    [[ $driver =~ ^[0-9]+(\.|$) ]] ||
        stop "nvidia-smi lists a GPU, but asked for its driver says '$driver': restart the machine, or install the driver again, and run make setup again."
    [ "${driver%%.*}" -ge 580 ] ||
        stop "torch and vllm are built for CUDA 13, which needs NVIDIA driver 580 or newer, and this is $driver: update it and run make setup again."
else
    grep -qw avx2 /proc/cpuinfo || stop "vllm needs a CPU with AVX2, which this one lacks: use another machine, or Colab."
fi
free_gb=$(df -Pk . 2>/dev/null | awk 'NR == 2 && $4 ~ /^[0-9]+$/ { print int($4 / 1048576) }') && [ "$free_gb" ] ||
    stop "df does not say how much disk is free here ($PWD): see what df -Pk . prints there, or clone the repository elsewhere, and run make setup again."
[ "$free_gb" -ge $disk_gb ] ||
    stop "$disk_gb GB of free disk are needed here and $free_gb GB are left: free some and run make setup again."

echo "==> $why: making .venv from $file with $("$python" --version)"
{ rm -rf .venv && mkdir .venv && echo unfinished >.venv/setup-stamp; } 2>/dev/null ||
    stop "$PWD cannot be written: clone the repository into a folder of your own and run make setup there."
"$python" -m venv .venv
# One small package first shows within seconds whether there is an index.
said=$(install_wheels --quiet --retries 1 --timeout 20 -r <(grep '^nbval==' $file) 2>&1) || {
    said=$(grep -i -m 1 error <<<"$said") || said="pip said nothing"
    stop "pip got no package (${said:0:200}): check the network and pip's configuration (pip config list), and run make setup again."
}

if [ $file = requirements.txt ]; then
    echo "==> installing the packages and what they need (about 3 GB to download)"
    .venv/bin/python -m pip install -r $file
else
    # torch's CPU build is not on PyPI: first what pip is configured with, then PyTorch's own index.
    torch=$(sed -n 's/^# torch==/torch==/p' $file)
    echo "==> installing $torch"
    install_wheels "$torch" 2>/dev/null || install_wheels --index-url https://download.pytorch.org/whl/cpu "$torch" ||
        stop "$torch is neither where pip looks nor on PyTorch's CPU index: check the network and run make setup again."
    echo "==> installing all $(grep -c == $file) packages: 1 to 2 minutes, and pip says nothing in the last of them"
    install_wheels --require-hashes -r $file ||
        stop "pip did not install them, for what it says above; a hash that does not match is another file than PyPI's: use another index (pip config list), and run make setup again."
fi
echo "$stamp" >.venv/setup-stamp
echo "Done in $SECONDS s. Next: make quickstart"
