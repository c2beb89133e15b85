"""VGG-16, ResNet-20 (k = 4) and DenseNet-40-12 written in Keras 3 by hand, for `plumbing.py`."""

import math
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # has no effect once TensorFlow is loaded

import keras
import numpy as np
import tensorflow as tf
from keras import layers

IMAGE = (32, 32, 3)
CLASSES = 10
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 1e-3, 0.9, 2e-4
VGG_16 = (((64, 3),) * 2, ((128, 3),) * 2, *(((width, 3), (width, 3), (width, 1)) for width in (256, 512, 512)))


def trainer(name: str) -> Callable[[np.ndarray, np.ndarray], Any]:
    """One training step of ``vgg16``, ``resnet20`` or ``densenet40-12`` on NHWC images."""
    model = {"vgg16": vgg16, "resnet20": resnet20, "densenet40-12": densenet40_12}[name]()
    optimizer = keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM, nesterov=True)
    optimizer.build(model.trainable_variables)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = cross_entropy(labels, model(images, training=True))
        variables = model.trainable_variables
        gradients = tape.gradient(loss, variables)
        decayed = [g + WEIGHT_DECAY * v for g, v in zip(gradients, variables, strict=True)]
        optimizer.apply_gradients(zip(decayed, variables, strict=True))
        return loss

    step.parameters = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    return step


def vgg16() -> keras.Model:
    """Configuration C with pre-activation."""
    inputs = keras.Input(IMAGE)
    x = inputs
    for stage in VGG_16:
        for features, size in stage:
            x = _conv(_activated(x), features, size)
        x = layers.MaxPooling2D()(x)
    x = layers.Flatten()(x)
    for _ in range(2):
        x = layers.Dense(4096, activation="relu", kernel_initializer="he_normal")(x)
        x = layers.Dropout(0.2)(x)
    return keras.Model(inputs, layers.Dense(CLASSES)(x))


def resnet20(k: int = 4) -> keras.Model:
    """Three groups of three blocks with pre-activation, ``k`` times as wide."""
    inputs = keras.Input(IMAGE)
    x = _conv(inputs, 16, 3)
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        x = _activated(x)
        shortcut = _conv(x, width * k, 1, stride)
        x = layers.Add()([_conv(_activated(_conv(x, width * k, 3, stride)), width * k, 3), shortcut])
        for _ in range(2):
            inner = _conv(_activated(x), width * k, 3)
            x = layers.Add()([x, _conv(_activated(inner), width * k, 3)])
    x = layers.GlobalAveragePooling2D()(_activated(x))
    return keras.Model(inputs, layers.Dense(CLASSES)(x))


def densenet40_12(growth: int = 12) -> keras.Model:
    """Three blocks of twelve layers, no bottleneck, no compression."""
    inputs = keras.Input(IMAGE)
    x = _conv(inputs, 16, 3)
    for block in range(3):
        if block:
            x = layers.AveragePooling2D(2)(_conv(_activated(x), x.shape[-1], 1))
        for _ in range(12):
            x = layers.Concatenate()([x, _conv(_activated(x), growth, 3)])
    x = layers.GlobalAveragePooling2D()(_activated(x))
    return keras.Model(inputs, layers.Dense(CLASSES)(x))


def _activated(x: Any) -> Any:
    return layers.ReLU()(layers.BatchNormalization(momentum=0.99, epsilon=1e-3)(x))


def _conv(x: Any, features: int, size: int, stride: int = 1) -> Any:
    return layers.Conv2D(features, size, stride, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
