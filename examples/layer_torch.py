"""An MPO layer in PyTorch: build it, train it for a moment, turn it into a dense layer."""

import torch

from mponet_torch import MPOLinear

torch.manual_seed(0)
layer = MPOLinear(784, 256, bond=16)
print(layer)

inputs, targets = torch.randn(100, 784), torch.randn(100, 256)
optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
for step in range(51):
    loss = torch.nn.functional.mse_loss(layer(inputs), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 25 == 0:
        print(f"step {step:2d}  loss {loss.item():.4f}")

dense = layer.to_dense()
difference = (dense(inputs) - layer(inputs)).abs().max().item()
print(f"as {dense}: largest difference {difference:.1e}")
assert difference < 1e-5
