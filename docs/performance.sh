#!/usr/bin/env bash
# Makes docs/measurements.md and its charts: about an hour and a half, on a machine that does nothing else.  The peers of benchmarks/peers.txt
# have to be installed.  RUNS, where files go; one that is there is taken as it is.
set -euo pipefail
cd "$(dirname "$0")/.."
runs="${RUNS:-runs/performance}"
mkdir -p "$runs" docs/performance
files=()
bench() { # NAME WHAT OPTIONS...
  [ -s "$runs/$1.json" ] || mponet bench "${@:2}" --json "$runs/$1.json" >&2
  files+=("$runs/$1.json")
}
for backend in torch jax tensorflow; do
  bench "layers-$backend" layers --backend "$backend" --patience 6
done
bench memory memory
for backend in torch jax tensorflow; do
  bench "models-$backend" models --backend "$backend" --rows fc2-d4,fc2-d16,lenet5
done
bench vgg16 models --backend torch --rows vgg16 --rounds 5
bench growth growth --backends torch,jax,tensorflow --rounds 7 --chart docs/performance/growth.svg
bench crossover crossover --backend torch --rounds 5 --chart docs/performance/crossover.svg
[ -s "$runs/plumbing.json" ] || python benchmarks/plumbing.py --json "$runs/plumbing.json" >&2
[ -s "$runs/parts.md" ] || python benchmarks/parts.py --rows 4096-n2-d16,4096-n4-d8,vgg-fc2,fc2-d16 > "$runs/parts.md"
python docs/performance.py "${files[@]}" "$runs/plumbing.json" "$runs/parts.md" > docs/measurements.md
