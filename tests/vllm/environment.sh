# How vLLM runs on a small machine without a GPU; source it from the project's root, then use `--serve vllm:PATH`.
export ARES_VLLM_PYTHON="$PWD/.venv-vllm/bin/python"
export VLLM_CPU_KVCACHE_SPACE=1          # GiB; the default asks for more than a small machine has
export VLLM_CPU_OMP_THREADS_BIND=nobind  # binding to cores fails in containers
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
export HF_HUB_OFFLINE=1
