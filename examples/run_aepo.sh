#!/usr/bin/env bash
# From questions to a scored checkpoint: RL data, AEPO on verl, every checkpoint evaluated, the series over the steps.
#
#   examples/run_aepo.sh [OUT]                       OUT [build/aepo]; the same command goes on where it stopped
#
# As it stands it needs no GPU and nothing from the network: a tiny transformer learns sums (examples/cold_start), and
# AEPO then takes a few short steps. It shows that the parts fit, not that the model gets better; for that there is
# examples/miniature, or a real model:
#
#   export MODEL=models/adacs                        begun with: best a cold start (examples/run_cold_start.sh)
#   export QUESTIONS=TIGER-Lab/ViRL39K               files or a dataset of the Hub, and
#   export DATA="--images image --image-root ViRL39K --id qid --val-size 512"      further words for `ares-train data`
#   export PRESET=aepo_7b                            or aepo_adaptive, aepo, grpo, dapo, ... (configs/train)
#   export TRAIN="trainer.total_epochs=2"            further words for `ares-train aepo`
#   export WATCH="--datasets mathvista,math500 --serve vllm --baseline first"      for `ares-train watch`
#   export BIN=.venv-train/bin                       where ares-train and ares-eval are
#
# A real run evaluates while it trains: start `ares-train watch RUN ...` on other GPUs instead of after it, and with
# trainer.eval in the configuration a regression can stop it (docs/loop.md). Presets with stages have a run in each of
# OUT/run/8k, OUT/run/16k.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
bin=$(cd "$root" && cd "${BIN:-.venv-train/bin}" && pwd)
out=${1:-$root/build/aepo}
mkdir -p "$out"
out=$(cd "$out" && pwd)
model=${MODEL:-$out/tiny}
questions=${QUESTIONS:-$out/pool.jsonl}
preset=${PRESET:-smoke_cpu}
data=${DATA:-"--val-size 8 --tasks none"}
watch=${WATCH:-"--datasets arithmetic --serve hf --config $out/watch.yaml"}
train=${TRAIN:-}
if [[ -n ${MODEL:-} && -z ${WATCH:-} ]]; then
  echo 'WATCH is missing: what should the checkpoints of MODEL be asked? e.g. export WATCH="--datasets math500 --serve vllm"' >&2
  exit 2
fi

step() { printf '\n== %s\n' "$*"; }

if [[ -z ${MODEL:-} ]]; then
  step "questions and lessons"
  [[ -f $out/lessons.jsonl ]] ||
    "$bin/python" "$root/examples/cold_start/corpus.py" "$out" --lessons 4000 --pool 72 --held-out 18
  step "a tiny model learns from them"
  [[ -d $out/tiny ]] || "$bin/python" "$root/examples/cold_start/tiny_model.py" "$out/lessons.jsonl" "$out/tiny" \
    --steps 160 --batch 32 --layers 2 --width 64 --rate 0.005
  printf 'run: {include_path: [%s/tasks], system_prompt: "", max_tokens: 64}\n' "$out" >"$out/watch.yaml"
  data="$data --system-prompt="
  train="data.max_response_length=64 $train"
fi

step "questions to verl's parquet"
# shellcheck disable=SC2086 - words
"$bin/ares-train" data "$questions" --output "$out/train.parquet" --val-output "$out/val.parquet" --model "$model" $data

step "training: $preset"
# shellcheck disable=SC2086
"$bin/ares-train" aepo --preset "$preset" data.train_files="$out/train.parquet" data.val_files="$out/val.parquet" \
  actor_rollout_ref.model.path="$model" trainer.default_local_dir="$out/run" $train

step "evaluating its checkpoints"
for run in $(find "$out/run" -name latest_checkpointed_iteration.txt -not -path '*/eval/*' -exec dirname {} \; | sort); do
  # shellcheck disable=SC2086
  "$bin/ares-train" watch "$run" --once $watch
  "$bin/ares-eval" series "$run"
done
step "done: $out/run"
