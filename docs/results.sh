#!/usr/bin/env bash
# Makes docs/results.md: trains on MNIST with every framework, evaluates each checkpoint in the
# others, writes the tables.  Variables: MPONET_DATA, the folder of the data; RUNS, the folder of the
# trainings, which are resumed if they exist.
set -euo pipefail
cd "$(dirname "$0")/.."
runs="${RUNS:-runs/results}"
for model in fc2 lenet5; do
  for backend in torch jax tensorflow; do
    out="$runs/$model-$backend"
    resume=$([ -d "$out" ] && echo --resume || true)
    mponet run "$model" --variant both --data mnist --preset short --backend "$backend" --out "$out" $resume >&2
    for other in torch jax tensorflow; do
      [ -s "$out/evaluated-$other.json" ] || mponet evaluate "$out" --backend "$other" --json > "$out/evaluated-$other.json"
    done
  done
  for dtype in float64 float32; do
    [ -s "$runs/crosscheck-$model-$dtype.json" ] ||
      mponet crosscheck "$model" --variant both --dtype "$dtype" --json > "$runs/crosscheck-$model-$dtype.json"
  done
done
python docs/results.py "$runs" > docs/results.md
