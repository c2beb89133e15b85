"""An MPO layer in Keras: build a model, fit it, save it, convert the layer to a dense one."""

import tempfile
from pathlib import Path

import keras
import numpy as np

from mponet_tensorflow import MPODense

keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((784,)), MPODense(256, bond=16, name="mpo")])
model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
print(model.get_layer("mpo"))

rng = np.random.default_rng(0)
inputs, targets = rng.normal(size=(100, 784)).astype("float32"), rng.normal(size=(100, 256)).astype("float32")
history = model.fit(inputs, targets, batch_size=100, epochs=51, verbose=0).history["loss"]
print(f"first loss {history[0]:.4f}, last loss {history[-1]:.4f}")

with tempfile.TemporaryDirectory() as folder:
    model.save(Path(folder) / "model.keras")
    loaded = keras.models.load_model(Path(folder) / "model.keras")
assert np.array_equal(loaded.predict(inputs, verbose=0), model.predict(inputs, verbose=0))

dense = model.get_layer("mpo").to_dense()
difference = np.abs(dense(inputs) - model(inputs)).max()
print(f"as keras.layers.Dense: largest difference {difference:.1e}")
assert difference < 1e-5
