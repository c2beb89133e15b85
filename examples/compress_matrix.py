"""Compress a matrix without a framework: the number of weights for each allowed error."""

import numpy as np

from mponet import MPOShape, from_matrix, truncate

# A kernel that decays slowly with distance, as in trained maps between grids.
positions = np.arange(256)
matrix = 1 / (1 + np.abs(positions[:, None] - positions[None, :]) / 8) ** 2
factors = (4, 4, 4, 4)

exact = from_matrix(matrix, factors, factors)
print(
    f"exact: {exact.mpo.shape}, {exact.mpo.shape.parameters} of {matrix.size} weights, error {exact.relative_error:.1e}"
)
print("entanglement entropy per bond:", np.round(exact.mpo.entropy(), 3))
print("largest singular values of the middle bond:", np.round(exact.mpo.spectra()[1][:4], 2))

print("\nallowed error   bonds            weights   error made   bound")
for allowed in (0.3, 0.1, 0.01, 1e-4):
    kept = from_matrix(matrix, factors, factors, relative_error=allowed)
    shape: MPOShape = kept.mpo.shape
    bonds = ",".join(map(str, shape.bond_dims[1:-1]))
    relative_bound = kept.bound / np.linalg.norm(matrix)
    print(f"{allowed:13.0e}   {bonds:<14} {shape.parameters:9d}   {kept.relative_error:10.2e}   {relative_bound:.2e}")
    assert kept.relative_error <= allowed

smaller = truncate(exact.mpo, max_bond=4)  # from an operator to a smaller one; the matrix is never formed
print(f"\ntruncated to bond 4: {smaller.mpo.shape.parameters} weights, error {smaller.relative_error:.2e}")
