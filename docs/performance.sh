#!/usr/bin/env bash
# Makes docs/measurements.md and its charts from the files in docs/measured.  Missing files are
# measured first.  All of them take about an hour and a half on a machine that does nothing else, with
# the packages of benchmarks/peers.txt installed.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=docs/measured
mkdir -p "$runs" docs/performance
bench() { # NAME WHAT OPTIONS...
  [ -s "$runs/$1.json" ] || mponet bench "${@:2}" --json "$runs/$1.json" >&2
}
for backend in torch jax tensorflow; do
  bench "layers-$backend" layers --backend "$backend" --patience 6
done
for backend in torch jax tensorflow; do
  bench "inference-$backend" inference --backend "$backend" --rounds 8
done
bench memory memory
for backend in torch jax tensorflow; do
  bench "models-$backend" models --backend "$backend" --rows fc2-d4,fc2-d16,lenet5
done
bench vgg16 models --backend torch --rows vgg16 --rounds 5
bench growth growth --backends torch,jax,tensorflow --rounds 7 --chart docs/performance/growth.svg
bench crossover crossover --backend torch --rounds 5 --chart docs/performance/crossover.svg
[ -s "$runs/plumbing.json" ] || python benchmarks/plumbing.py --json "$runs/plumbing.json" >&2
if [ ! -s "$runs/parts.md" ]; then
  printf '## Parts of a layer\n\n    python benchmarks/parts.py\n\n' > "$runs/parts.tmp"
  python benchmarks/parts.py --rows 4096-n2-d16,4096-n4-d8,vgg-fc2,fc2-d16 >> "$runs/parts.tmp"
  mv "$runs/parts.tmp" "$runs/parts.md"
fi
python docs/performance.py > docs/measurements.md
