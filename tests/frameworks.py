"""One small window onto each framework's layer, so that one contract suite serves them all.

Every probe has the same functions; arrays go in and out as numpy.  Gradients are those of
``sum(slope * layer(inputs))``.
"""

from types import SimpleNamespace

import numpy as np

SUBSCRIPTS = {  # x @ W through the framework's own einsum and autodiff, for shapes of 1 to 4 sites
    1: "bi,aijc->bj",
    2: "bik,aijc,cklm->bjl",
    3: "bikn,aijc,cklm,mnop->bjlo",
    4: "biknq,aijc,cklm,mnop,pqrs->bjlor",
}


def probe(name):
    """The window onto framework ``name``."""
    return {"torch": _torch, "jax": _jax, "tensorflow": _tensorflow}[name]()


def weights(layer):
    """Names of the cores of an operator's layer, or of the nodes of another network's."""
    return layer.parameter_names


def _torch():
    import torch

    from mponet_torch import MPOLinear, NetworkLinear
    from mponet_torch.ops.contraction import apply

    def tensor(array):
        return torch.tensor(np.asarray(array))

    def gradients(layer, inputs, slope):
        x = tensor(inputs).requires_grad_()
        parameters = [*(getattr(layer, name) for name in weights(layer)), *([] if layer.bias is None else [layer.bias])]
        found = torch.autograd.grad((layer(x) * tensor(slope)).sum(), [x, *parameters])
        return [value.numpy() for value in found]

    def einsum_gradients(cores, inputs, slope):
        leaves = [tensor(a).requires_grad_() for a in (inputs, *cores)]
        product = torch.einsum(SUBSCRIPTS[len(cores)], *leaves)
        return [v.numpy() for v in torch.autograd.grad((product * tensor(slope)).sum(), leaves)]

    def dense(weight, bias):
        layer = torch.nn.Linear(*weight.shape, bias is not None, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(tensor(weight.T))
            if bias is not None:
                layer.bias.copy_(tensor(bias))
        return layer

    def slopes(function, arrays, slope):
        leaves = [tensor(a).requires_grad_() for a in arrays]
        return [v.numpy() for v in torch.autograd.grad((function(*leaves) * tensor(slope)).sum(), leaves)]

    def reloaded(layer, folder, fresh=None):
        torch.save(layer.state_dict(), folder / "layer.pt")
        options = {"seed": 9, "dtype": layer.tensors[0].dtype}
        again = fresh or NetworkLinear(layer.shape, layer.bias is not None, **options)
        again.load_state_dict(torch.load(folder / "layer.pt", weights_only=True))
        return again

    def losses(layer, inputs, targets, steps):
        optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
        for _ in range(steps):
            loss = torch.nn.functional.mse_loss(layer(tensor(inputs)), tensor(targets))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield loss.item()

    return SimpleNamespace(
        network=NetworkLinear,
        apply=apply,
        array=tensor,
        wired=lambda wiring, **options: NetworkLinear(wiring, **options),
        slopes=slopes,
        reloaded=reloaded,
        losses=losses,
        layer=MPOLinear,
        float64=torch.float64,
        sized=lambda inputs, outputs, bond, **options: MPOLinear(inputs, outputs, bond, **options),
        call=lambda layer, inputs: layer(tensor(inputs)).detach().numpy(),
        gradients=gradients,
        einsum_gradients=einsum_gradients,
        dense=dense,
        dense_call=lambda layer, inputs: layer(tensor(inputs)).detach().numpy(),
    )


def _jax():
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from mponet_jax import MPOLinear, NetworkLinear
    from mponet_jax.ops.contraction import apply

    def gradients(layer, inputs, slope):
        def total(layer, x):
            return (layer(x) * slope).sum()

        slopes, x = nnx.grad(total, argnums=(0, 1))(layer, jnp.asarray(inputs))
        cores = [getattr(slopes, name)[...] for name in weights(layer)]
        biases = [] if layer.bias is None else [slopes.bias[...]]
        return [np.asarray(value) for value in (x, *cores, *biases)]

    def einsum_gradients(cores, inputs, slope):
        def total(*leaves):
            return (jnp.einsum(SUBSCRIPTS[len(cores)], *leaves) * slope).sum()

        leaves = [jnp.asarray(a) for a in (inputs, *cores)]
        return [np.asarray(v) for v in jax.grad(total, argnums=tuple(range(len(leaves))))(*leaves)]

    def dense(weight, bias):
        layer = nnx.Linear(*weight.shape, use_bias=bias is not None, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        layer.kernel[...] = jnp.asarray(weight)
        if bias is not None:
            layer.bias[...] = jnp.asarray(bias)
        return layer

    def slopes(function, arrays, slope):
        leaves = [jnp.asarray(a) for a in arrays]
        total = jax.grad(lambda *leaves: (function(*leaves) * slope).sum(), argnums=tuple(range(len(leaves))))
        return [np.asarray(v) for v in total(*leaves)]

    def reloaded(layer, folder, fresh=None):
        flat = {"/".join(path): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(nnx.state(layer))}
        np.savez(folder / "layer.npz", **flat)
        abstract = nnx.eval_shape(
            lambda: fresh or NetworkLinear(layer.shape, use_bias=layer.use_bias, dtype=layer.dtype, rngs=nnx.Rngs(9))
        )
        graph, state = nnx.split(abstract)
        loaded = np.load(folder / "layer.npz")
        return nnx.merge(graph, jax.tree.map_with_path(lambda path, _: jnp.asarray(loaded[path[0].key]), state))

    def losses(layer, inputs, targets, steps):
        optimizer = nnx.Optimizer(layer, optax.adam(1e-2), wrt=nnx.Param)
        for _ in range(steps):
            loss, slopes = nnx.value_and_grad(lambda layer: jnp.mean((layer(inputs) - targets) ** 2))(layer)
            optimizer.update(layer, slopes)
            yield float(loss)

    return SimpleNamespace(
        network=NetworkLinear,
        apply=apply,
        array=jnp.asarray,
        wired=lambda wiring, seed=0, **options: NetworkLinear(wiring, rngs=nnx.Rngs(seed), **options),
        slopes=slopes,
        reloaded=reloaded,
        losses=losses,
        layer=MPOLinear,
        float64=jnp.float64,
        sized=lambda inputs, outputs, bond, **options: MPOLinear(inputs, outputs, bond, rngs=nnx.Rngs(0), **options),
        call=lambda layer, inputs: np.asarray(layer(jnp.asarray(inputs))),
        gradients=gradients,
        einsum_gradients=einsum_gradients,
        dense=dense,
        dense_call=lambda layer, inputs: np.asarray(layer(jnp.asarray(inputs))),
    )


def _tensorflow():
    import keras
    import tensorflow as tf

    from mponet_tensorflow import MPODense, NetworkDense
    from mponet_tensorflow.ops.contraction import apply

    def gradients(layer, inputs, slope):
        x = tf.constant(inputs)
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(layer(x) * slope)
        wanted = [x, *(getattr(layer, name) for name in weights(layer)), *([] if layer.bias is None else [layer.bias])]
        wanted = [getattr(v, "value", v) for v in wanted]
        return [v.numpy() for v in tape.gradient(total, wanted)]

    def einsum_gradients(cores, inputs, slope):
        leaves = [tf.constant(a) for a in (inputs, *cores)]
        with tf.GradientTape() as tape:
            tape.watch(leaves)
            total = tf.reduce_sum(tf.einsum(SUBSCRIPTS[len(cores)], *leaves) * slope)
        return [v.numpy() for v in tape.gradient(total, leaves)]

    def dense(weight, bias):
        layer = keras.layers.Dense(weight.shape[1], use_bias=bias is not None, dtype="float64")
        layer.build((None, weight.shape[0]))
        layer.set_weights([weight] if bias is None else [weight, bias])
        return layer

    def sized(inputs, outputs, bond, **options):
        layer = MPODense(outputs, bond, input_dims=inputs if isinstance(inputs, tuple) else None, **options)
        layer.build((None, int(np.prod(inputs))))
        return layer

    def wired(wiring, **options):
        layer = NetworkDense(wiring, **options)
        layer.build((None, wiring.in_features))
        return layer

    def slopes(function, arrays, slope):
        leaves = [tf.constant(a) for a in arrays]
        with tf.GradientTape() as tape:
            tape.watch(leaves)
            total = tf.reduce_sum(function(*leaves) * slope)
        return [v.numpy() for v in tape.gradient(total, leaves)]

    def reloaded(layer, folder, fresh=None):
        keras.Sequential([keras.Input((layer.in_features,)), layer]).save(folder / "model.keras")
        return keras.saving.load_model(folder / "model.keras").layers[-1]

    def losses(layer, inputs, targets, steps):
        model = keras.Sequential([keras.Input((layer.in_features,)), layer])
        model.compile(keras.optimizers.Adam(1e-2), "mse")
        yield from model.fit(inputs, targets, batch_size=len(inputs), epochs=steps, verbose=0).history["loss"]

    return SimpleNamespace(
        network=NetworkDense,
        apply=apply,
        array=tf.constant,
        wired=wired,
        slopes=slopes,
        reloaded=reloaded,
        losses=losses,
        layer=MPODense,
        float64="float64",
        sized=sized,
        call=lambda layer, inputs: layer(tf.constant(inputs)).numpy(),
        gradients=gradients,
        einsum_gradients=einsum_gradients,
        dense=dense,
        dense_call=lambda layer, inputs: layer(tf.constant(inputs)).numpy(),
    )
