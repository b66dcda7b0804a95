#!/bin/sh
# The tests against a real vLLM on this machine's CPU (`make test-vllm`): makes .venv-vllm (3.5 GB, some minutes), then runs
# tests/vllm from the project's own environment. PYTHON: the python with ares and pytest [.venv/bin/python]; TORCH_INDEX:
# an index of PyTorch's CPU wheels; PIP_*: as pip knows them. Exit code 77: vLLM for the CPU cannot be had here.
set -eu
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
home=.venv-vllm
stamp=$home/.made-from

if ! cmp -s tests/vllm/requirements.txt "$stamp"; then
    echo "making $home: vLLM for the CPU, about 3.5 GB"
    rm -rf "$home"
    "$python" -m venv "$home"
    if ! "$home/bin/python" -m pip install --quiet ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
        -r tests/vllm/requirements.txt 2> "$home/pip.log"; then
        echo "test-vllm did not run: vLLM's CPU wheel or its torch cannot be had here ($(grep -m1 '^ERROR' "$home/pip.log" ||
            tail -n 1 "$home/pip.log")); mend: set TORCH_INDEX to PyTorch's index of CPU wheels" >&2
        exit 77
    fi
    # PyPI's builds of these need CUDA; nothing here needs sound or video.
    "$home/bin/python" -m pip uninstall --quiet --yes torchaudio torchcodec
    cp tests/vllm/sitecustomize.py "$("$home/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    cp tests/vllm/requirements.txt "$stamp"
fi

. tests/vllm/environment.sh
exec "$python" -m pytest tests/vllm -m vllm "$@"
