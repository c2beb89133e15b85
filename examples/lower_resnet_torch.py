"""A network of the paper as a PyTorch module: print it, train it in your own loop, export it."""

import torch

import mponet_torch
from mponet.models import build
from mponet.models.init import start
from mponet.models.shapes import parameter_count

torch.manual_seed(0)
spec = build("resnet14-k1-unit", "mpo")  # 14 layers, k = 1; last block and head are operators
network = mponet_torch.backend.build(spec, start(spec, seed=0))
print(network[-6:])  # the head: batch norm, ReLU, pooling, then norm, ReLU and the operator
dense = build("resnet14-k1-unit", "dense")
print(f"{parameter_count(dense)} parameters in the dense variant, {parameter_count(spec)} in the mpo variant")

images, labels = torch.randn(32, 3, 32, 32), torch.randint(10, (32,))
optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
losses = []
for _ in range(20):
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(network(images), labels)
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"loss {losses[0]:.2f} -> {losses[-1]:.2f}")

network.eval()
exported = torch.export.export(network, (images,)).module()
difference = (exported(images) - network(images)).abs().max().item()
print(f"exported; largest difference of a logit {difference:.1e}")
assert losses[-1] < 0.5 * losses[0]
assert difference < 1e-4
