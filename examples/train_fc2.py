"""Train FC2, dense and mpo, on real digits in the framework that MPONET_BACKEND names."""

from dataclasses import replace

import numpy as np

import mponet
from mponet.models import build
from mponet.models.init import start
from mponet.models.shapes import parameter_count
from mponet.recipe import learning_rate, preset
from mponet.training.data import batch_order, fit, load, scaled

backend = mponet.load()
recipe = replace(preset("fc2", "short"), steps=300)
data = fit(load("digits"), (28, 28, 1))
images, labels = scaled(data.train_images), data.train_labels
print(f"{backend.name}: {len(labels)} images of {data.name}, {recipe.steps} steps of {recipe.batch}")

for variant in ("dense", "mpo"):
    model = build("fc2", variant)
    native = backend.build(model, start(model, seed=0))
    trainer = backend.trainer(native, recipe)
    for step in range(recipe.steps):
        epoch, position = divmod(step, len(labels) // recipe.batch)
        batch = batch_order(len(labels), recipe.batch, seed=0, epoch=epoch)[position]
        trainer.step(images[batch], labels[batch], learning_rate(recipe, step))
    logits = backend.predict(native, scaled(data.test_images))
    accuracy = np.mean(logits.argmax(axis=1) == data.test_labels)
    print(f"{variant:5s}  {parameter_count(model):7,d} parameters  test accuracy {accuracy:.1%}")
    assert accuracy > 0.9
