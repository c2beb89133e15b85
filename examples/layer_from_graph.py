"""Layers of any tensor network in PyTorch: a ring and a Tucker form of TensorNetwork nodes.

In JAX use `mponet_jax.NetworkLinear`, in Keras `mponet_tensorflow.NetworkDense`, with the same
nodes and names.
"""

import numpy as np
import tensornetwork as tn
import torch

from mponet.operators.topology import NetworkShape
from mponet_torch import NetworkLinear

rng = np.random.default_rng(0)


def node(name, **sizes):
    """A node of normal random numbers with named axes."""
    return tn.Node(rng.normal(size=tuple(sizes.values())) / 4, name=name, axis_names=list(sizes))


# A ring of three sites.  Input and output edges have names; bonds join the sites.
nodes = [node(f"core{k}", left=4, inputs=8, outputs=8, right=4) for k in (1, 2, 3)]
for k, site in enumerate(nodes, start=1):
    site["inputs"].set_name(f"in{k}")
    site["outputs"].set_name(f"out{k}")
    tn.connect(site["right"], nodes[k % 3]["left"])

ring = NetworkLinear.from_nodes(nodes, bias=np.zeros(512))
print(ring, "\n")
print(ring.explain(128), "\n")

inputs = torch.randn(128, 512)
difference = (ring(inputs) - inputs @ torch.tensor(ring.to_matrix(), dtype=torch.float32)).abs().max().item()
print(f"ring against its matrix: largest difference {difference:.1e}")
assert difference < 1e-4

# A shape without numbers: factors for inputs and outputs around a small core.  The layer draws
# initial values with the variance of a dense layer.
tucker = NetworkShape.from_edges(
    {"rows": "in1 a", "columns": "in2 b", "core": "a b c d", "up": "c out1", "down": "d out2"},
    {"in1": 28, "in2": 28, "a": 8, "b": 8, "c": 8, "d": 8, "out1": 16, "out2": 16},
)
torch.manual_seed(0)
layer = NetworkLinear(tucker)
print(f"\n{layer}")

inputs, targets = torch.randn(100, 784), torch.randn(100, 256)
optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
losses = []
for step in range(51):
    loss = torch.nn.functional.mse_loss(layer(inputs), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    if step % 25 == 0:
        print(f"step {step:2d}  loss {losses[-1]:.4f}")
assert losses[-1] < losses[0]
