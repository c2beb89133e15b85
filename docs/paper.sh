#!/usr/bin/env bash
# Makes docs/paper.md: the MNIST experiments of the paper with its recipe, and short ones on CIFAR-10.
# It takes many hours on two cores, and continues what exists.  Variables: MPONET_DATA, the folder of
# the data; RUNS, the folder of the trainings; EPOCHS, for fewer epochs on CIFAR-10; MODELS, its networks.
set -euo pipefail
cd "$(dirname "$0")/.."
runs="${RUNS:-runs/paper}"
mponet suite --preset paper --models fc2:2,fc2:4,fc2:8,fc2:16,fc2:22 --seeds 1 --out "$runs/mnist" >&2
for backend in torch jax tensorflow; do
  mponet run fc2 --variant mpo --bond 16 --data mnist --preset paper --backend "$backend" --out "$runs/frameworks/$backend" --resume >&2
done
for variant in dense mpo; do
  mponet run lenet5 --variant "$variant" --data mnist --preset paper --backend tensorflow --out "$runs/lenet5-full/lenet5-$variant-seed0" --resume >&2
done
[ -s "$runs/small_bonds.md" ] || python docs/small_bonds.py > "$runs/small_bonds.md"
python docs/lenet5.py "$runs/lenet5" > "$runs/lenet5.md"
for model in ${MODELS:-resnet20-k1 vgg16 densenet40-12}; do
  mponet suite --preset short --models "$model" --seeds 1 ${EPOCHS:+--epochs "$EPOCHS"} --out "$runs/cifar10/$model" >&2
done
python docs/paper.py "$runs" > docs/paper.md
