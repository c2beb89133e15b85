"""Importing an adapter starts no device.

Each in a fresh process, which then does what must come first.
"""

import os
import subprocess
import sys

import pytest

#: After the import, what a framework allows only before its devices start.
STARTS = {
    "torch": """
import torch

def refuse(*_):
    raise AssertionError("a device was asked for")

for name in ("is_available", "device_count", "current_device", "get_device_name", "get_device_properties", "init"):
    setattr(torch.cuda, name, refuse)
import mponet_torch, mponet_torch.nn.network, mponet_torch.ops.planning, mponet_torch.train, mponet_torch.bench
assert not torch.cuda.is_initialized()
""",
    "jax": """
import mponet_jax, mponet_jax.nn.network, mponet_jax.ops.planning, mponet_jax.train
import socket
import jax
with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
jax.distributed.initialize(f"localhost:{port}", num_processes=1, process_id=0)
assert jax.process_count() == 1
from flax import nnx
assert mponet_jax.MPOLinear(4, 4, 2, rngs=nnx.Rngs(0))(jax.numpy.ones((2, 4))).shape == (2, 4)
""",
    "tensorflow": """
import mponet_tensorflow, mponet_tensorflow.nn.network, mponet_tensorflow.ops.planning, mponet_tensorflow.train
import tensorflow as tf
tf.config.threading.set_inter_op_parallelism_threads(1)  # raises once devices have started
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
assert len(tf.config.list_logical_devices("CPU")) == 2
""",
}


def test_importing_an_adapter_starts_no_device(backend_name):
    if backend_name not in STARTS:
        pytest.skip("numpy has no devices to start")
    package = f"mponet_{backend_name}"
    every_name = f"import {package}\nfor name in {package}.__all__: getattr({package}, name)\n"
    run_code(every_name + STARTS[backend_name])


def test_what_works_on_whole_networks_is_imported_when_it_is_used(backend_name):
    if backend_name not in STARTS:
        pytest.skip("it has layers only")
    package = f"mponet_{backend_name}"
    code = f"""
import sys, {package}
assert {package}.backend and not [name for name in sys.modules if name.startswith("mponet.compress")]
from {package} import compress
assert compress.__module__ == "{package}.compression" and set({package}.__all__) == set(dir({package}))
assert {package}.compression.compress is compress
try:
    {package}.compres
except AttributeError as error:
    assert "compress, " in str(error)
else:
    raise AssertionError("a name that does not exist was found")
"""
    run_code(code)


def run_code(code):
    """Run code in a fresh process, and expect that it ends well."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
