"""One small window onto each framework's convolutions and embeddings.

So one suite serves them all.

Feature maps go in and out as numpy ``(batch, *sizes, channels)``, kernels as HWIO, tables as
``(tokens, features)``.  Gradients are those of ``sum(slope * layer(inputs))``, by name: ``inputs``,
``core1``, ..., ``bias``; of a dense layer ``weight``.
"""

from types import SimpleNamespace

import numpy as np


def probe(name):
    """The window onto framework ``name``."""
    return {"torch": _torch, "jax": _jax, "tensorflow": _tensorflow}[name]()


def cores_of(layer):
    """Names of the cores."""
    return [f"core{k + 1}" for k in range(layer.shape.sites)]


def _torch():
    import torch

    from mponet_torch import MPOConv1d, MPOConv2d, MPOEmbedding

    def native(maps):
        return torch.tensor(np.moveaxis(maps, -1, 1))

    def numpy(maps):
        return np.moveaxis(maps.detach().numpy(), 1, -1)

    def dense_conv(kernel, bias, stride=1, padding="valid", dilation=1, groups=1):
        rank = kernel.ndim - 2
        kind = (torch.nn.Conv1d, torch.nn.Conv2d)[rank - 1]
        channels = kernel.shape[-2] * groups, kernel.shape[-1]
        options = {"groups": groups, "bias": bias is not None, "dtype": torch.float64}
        conv = kind(*channels, kernel.shape[:-2], stride, padding, dilation, **options)
        with torch.no_grad():
            conv.weight.copy_(torch.tensor(kernel.transpose(-1, -2, *range(rank))))
            if bias is not None:
                conv.bias.copy_(torch.tensor(bias))
        return conv

    def dense_embedding(table):
        return torch.nn.Embedding.from_pretrained(torch.tensor(table), freeze=False)

    def gradients(layer, inputs, slope, call):
        leaves = dict(layer.named_parameters())
        x = torch.tensor(inputs)
        if x.is_floating_point():
            leaves["inputs"] = x.requires_grad_()
        total = (call(layer, x) * torch.tensor(slope)).sum()
        found = torch.autograd.grad(total, list(leaves.values()))
        return {name: value.numpy() for name, value in zip(leaves, found, strict=True)}

    def conv_gradients(layer, maps, slope):
        found = gradients(layer, np.moveaxis(maps, -1, 1), np.moveaxis(slope, -1, 1), lambda layer, x: layer(x))
        found["inputs"] = np.moveaxis(found["inputs"], 1, -1)
        if "weight" in found:
            weight = found["weight"]
            found["weight"] = weight.transpose(*range(2, weight.ndim), 1, 0)
        return found

    def served(layer, maps):
        layer.eval()
        with torch.no_grad():
            return numpy(layer(native(maps)))

    def losses(layer, inputs, targets, steps):
        optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
        for _ in range(steps):
            loss = ((layer(torch.tensor(inputs)) - torch.tensor(targets)) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield loss.item()

    return SimpleNamespace(
        conv={1: MPOConv1d, 2: MPOConv2d},
        embedding=MPOEmbedding,
        float64={"dtype": torch.float64},
        window=lambda stride, padding, dilation: {"stride": stride, "padding": padding, "dilation": dilation},
        default_padding="valid",
        explicit=True,
        both=True,
        strided_same=False,
        every=1,
        out_of_range="raises",
        dense_conv=dense_conv,
        dense_embedding=dense_embedding,
        call=lambda layer, maps: numpy(layer(native(maps))),
        served=served,
        conv_gradients=conv_gradients,
        look_up=lambda layer, tokens: layer(torch.tensor(tokens)).detach().numpy(),
        attend=lambda layer, rows: layer.attend(torch.tensor(rows)).detach().numpy(),
        look_up_gradients=lambda layer, tokens, slope: gradients(layer, tokens, slope, lambda layer, x: layer(x)),
        attend_gradients=lambda layer, rows, slope: gradients(layer, rows, slope, lambda layer, x: layer.attend(x)),
        weight=lambda layer: layer.weight.detach().numpy().transpose(*range(2, layer.weight.ndim), 1, 0),
        table=lambda layer: layer.weight.detach().numpy(),
        losses=losses,
    )


def _jax():
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from mponet_jax import MPOConv, MPOEmbed

    def dense_conv(kernel, bias, stride=1, padding="valid", dilation=1, groups=1):
        *window, inputs, outputs = kernel.shape
        conv = nnx.Conv(
            inputs * groups,
            outputs,
            tuple(window),
            stride,
            padding=padding.upper() if isinstance(padding, str) else padding,
            kernel_dilation=dilation,
            feature_group_count=groups,
            use_bias=bias is not None,
            param_dtype=jnp.float64,
            rngs=nnx.Rngs(0),
        )
        conv.kernel[...] = jnp.asarray(kernel)
        if bias is not None:
            conv.bias[...] = jnp.asarray(bias)
        return conv

    def dense_embedding(table):
        embedding = nnx.Embed(*table.shape, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        embedding.embedding[...] = jnp.asarray(table)
        return embedding

    def called(layer, inputs, call=lambda layer, x: layer(x)):
        """Compiled as a whole: operation by operation takes longer."""
        return np.asarray(nnx.jit(call)(layer, jnp.asarray(inputs)))

    def gradients(layer, inputs, slope, call):
        def total(layer, x):
            return (call(layer, x) * slope).sum()

        inputs = jnp.asarray(inputs)
        both = jnp.issubdtype(inputs.dtype, jnp.floating)
        slopes = nnx.jit(nnx.grad(total, argnums=(0, 1) if both else 0))(layer, inputs)
        slopes, *x = slopes if both else (slopes,)
        names = {"kernel": "weight", "embedding": "weight"}
        found = {names.get(path[0], path[0]): leaf[...] for path, leaf in nnx.to_flat_state(slopes)}
        return {name: np.asarray(value) for name, value in (*found.items(), *(("inputs", v) for v in x))}

    def losses(layer, inputs, targets, steps):
        optimizer = nnx.Optimizer(layer, optax.adam(1e-2), wrt=nnx.Param)
        for _ in range(steps):
            loss, slopes = nnx.value_and_grad(lambda layer: jnp.mean((layer(jnp.asarray(inputs)) - targets) ** 2))(
                layer
            )
            optimizer.update(layer, slopes)
            yield float(loss)

    return SimpleNamespace(
        conv={1: MPOConv, 2: MPOConv},
        embedding=MPOEmbed,
        float64={"param_dtype": jnp.float64},
        window=lambda stride, padding, dilation: {
            "strides": stride,
            "padding": padding,
            "kernel_dilation": dilation,
        },
        default_padding="same",
        explicit=True,
        both=True,
        strided_same=True,
        every=12,  # compilation takes longer than the rest
        out_of_range="not a number",
        dense_conv=dense_conv,
        dense_embedding=dense_embedding,
        call=called,
        served=called,
        conv_gradients=lambda layer, maps, slope: gradients(layer, maps, slope, lambda layer, x: layer(x)),
        look_up=called,
        attend=lambda layer, rows: called(layer, rows, lambda layer, x: layer.attend(x)),
        look_up_gradients=lambda layer, tokens, slope: gradients(layer, tokens, slope, lambda layer, x: layer(x)),
        attend_gradients=lambda layer, rows, slope: gradients(layer, rows, slope, lambda layer, x: layer.attend(x)),
        weight=lambda layer: np.asarray(layer.kernel),
        table=lambda layer: np.asarray(layer.embedding),
        losses=losses,
    )


def _tensorflow():
    import keras
    import tensorflow as tf

    from mponet_tensorflow import MPOConv1D, MPOConv2D, MPOEmbedding

    def dense_conv(kernel, bias, stride=1, padding="valid", dilation=1, groups=1):
        *window, inputs, outputs = kernel.shape
        kind = (keras.layers.Conv1D, keras.layers.Conv2D)[len(window) - 1]
        options = {"dilation_rate": dilation, "groups": groups, "use_bias": bias is not None, "dtype": "float64"}
        conv = kind(outputs, tuple(window), stride, padding, **options)
        conv.build((None, *(None for _ in window), inputs * groups))
        conv.set_weights([kernel] if bias is None else [kernel, bias])
        return conv

    def dense_embedding(table):
        embedding = keras.layers.Embedding(*table.shape, dtype="float64")
        embedding.build()
        embedding.set_weights([table])
        return embedding

    def gradients(layer, inputs, slope, call):
        names = {"kernel": "weight", "embeddings": "weight"}
        leaves = {names.get(v.name, v.name): v.value for v in layer.trainable_variables}
        x = tf.constant(inputs)
        if x.dtype.is_floating:
            leaves["inputs"] = x
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(call(layer, x) * slope)
        found = tape.gradient(total, list(leaves.values()))
        return {name: tf.convert_to_tensor(value).numpy() for name, value in zip(leaves, found, strict=True)}

    def losses(layer, inputs, targets, steps):
        model = keras.Sequential([keras.Input(inputs.shape[1:], dtype=str(inputs.dtype)), layer])
        model.compile(keras.optimizers.Adam(1e-2), "mse")
        yield from model.fit(inputs, targets, batch_size=len(inputs), epochs=steps, verbose=0).history["loss"]

    return SimpleNamespace(
        conv={1: MPOConv1D, 2: MPOConv2D},
        embedding=MPOEmbedding,
        float64={"dtype": "float64"},
        window=lambda stride, padding, dilation: {"strides": stride, "padding": padding, "dilation_rate": dilation},
        default_padding="valid",
        explicit=False,
        both=False,
        strided_same=True,
        every=4,
        out_of_range="raises",
        dense_conv=dense_conv,
        dense_embedding=dense_embedding,
        call=lambda layer, maps: layer(tf.constant(maps)).numpy(),
        served=lambda layer, maps: layer(tf.constant(maps), training=False).numpy(),
        conv_gradients=lambda layer, maps, slope: gradients(layer, maps, slope, lambda layer, x: layer(x)),
        look_up=lambda layer, tokens: layer(tf.constant(tokens)).numpy(),
        attend=lambda layer, rows: layer(tf.constant(rows), reverse=True).numpy(),
        look_up_gradients=lambda layer, tokens, slope: gradients(layer, tokens, slope, lambda layer, x: layer(x)),
        attend_gradients=lambda layer, rows, slope: gradients(
            layer, rows, slope, lambda layer, x: layer(x, reverse=True)
        ),
        weight=lambda layer: tf.convert_to_tensor(layer.kernel).numpy(),
        table=lambda layer: tf.convert_to_tensor(layer.embeddings).numpy(),
        losses=losses,
    )
