"""Two processes that share the work give what one gives: DDP and FSDP2."""

import os
import subprocess
import sys

import pytest

if "torch" not in os.environ.get("MPONET_BACKENDS", ""):
    pytest.skip("MPONET_BACKENDS does not name torch", allow_module_level=True)

import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard

import graphs
from mponet_torch import MPOLinear, NetworkLinear

STEPS, ROWS = 5, 8
WAYS = ("ddp", "fsdp2")


def model():
    return nn.Sequential(
        MPOLinear((4, 4), (4, 3), 5, seed=1, dtype=torch.float64),
        nn.Tanh(),
        NetworkLinear(graphs.WIRINGS["ring"], seed=2, dtype=torch.float64),
    )


def data():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(STEPS, ROWS, 16, generator=generator, dtype=torch.float64)


def trained(module, batches):
    """The matrices after a few steps of gradient descent."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    for batch in batches:
        optimizer.zero_grad()
        module(batch).square().mean().backward()
        optimizer.step()
    inner = getattr(module, "module", module)
    return [torch.from_numpy(inner[number].to_matrix()) for number in (0, 2)]


def shared(way):
    """The model in the form in which processes share its work."""
    if way == "ddp":
        return nn.parallel.DistributedDataParallel(model())
    mesh, whole = distributed.device_mesh.init_device_mesh("cpu", (2,)), model()
    for layer in whole:
        fully_shard(layer, mesh=mesh)
    return fully_shard(whole, mesh=mesh)


def work(rank, store, results):
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    own = data().chunk(2, dim=1)[rank]  # the mean over ranks is the mean over the batch
    found = {way: trained(shared(way), own) for way in WAYS}
    if rank == 0:
        torch.save(found, results)
    distributed.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    # this file as a script, because a process that is spawned cannot import the tests by name
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = str(tmp_path / "store"), str(tmp_path / "found.pt")
    commands = [[sys.executable, __file__, str(rank), *arguments] for rank in range(2)]
    workers = [subprocess.Popen(command, env=environment) for command in commands]
    assert [worker.wait(240) for worker in workers] == [0, 0]
    expected = trained(model(), data())
    for way, found in torch.load(tmp_path / "found.pt").items():
        for ours, one in zip(found, expected, strict=True):
            assert (ours - one).abs().max() <= 1e-12 * max(1.0, one.abs().max().item()), way


if __name__ == "__main__":
    work(int(sys.argv[1]), *sys.argv[2:])
