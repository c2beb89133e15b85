"""The part of JAX and flax.nnx in the contract of compression (`contract.compression`)."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

import mponet_jax as package
from contract.compression import BIASES, SHAPES, SIZE, WORDS, Case
from mponet_jax.compression.streaming import named_modules

__all__ = ["package"]


def _filled(layer, weight, bias):
    variable = layer.embedding if isinstance(layer, nnx.Embed) else layer.kernel
    assert variable.size == weight.size
    variable.set_value(jnp.asarray(weight.reshape(variable.shape), variable.dtype))
    if bias is not None:
        layer.bias.set_value(jnp.asarray(bias.reshape(layer.bias.shape), variable.dtype))
    return layer


class _Single(nnx.Module):
    def __init__(self, layer):
        self.layer = layer

    def __call__(self, inputs):
        return self.layer(inputs)


def _case(shape, batch, cls, *sizes, order=None, has_bias=True, **options):
    """A case of a class whose kernel is the matrix, reshaped to ``order[0]`` and transposed."""

    def make(matrix, bias, dtype):
        given = {**options, "use_bias": bias is not None} if has_bias else dict(options)
        if "bias_shape" in given:
            del given["use_bias"]
            given["bias_shape"] = given["bias_shape"] if bias is not None else None
        layer = cls(*sizes, param_dtype=dtype, rngs=nnx.Rngs(0), **given)
        return _Single(_filled(layer, matrix if order is None else matrix.reshape(order[0]).transpose(order[1]), bias))

    return Case(shape, make, batch, has_bias)


def _normal(*shape):
    return lambda rng, dtype: jnp.asarray(rng.normal(size=shape), dtype)


CASES = {
    "linear": _case((24, 32), _normal(9, 7, 24), nnx.Linear, 24, 32),
    "linear-general": _case((24, 32), _normal(9, 7, 4, 6), nnx.LinearGeneral, (4, 6), (8, 4), axis=(-2, -1)),
    "linear-general-first": _case((4, 32), _normal(4, 60), nnx.LinearGeneral, 4, (8, 4), axis=0),
    "einsum": _case(
        (24, 32),
        _normal(9, 4, 7, 6),
        nnx.Einsum,
        "bhtd,mdhk->bkmt",
        (8, 6, 4, 4),
        # rows (h, d), columns (k, m)
        order=((4, 6, 4, 8), (3, 1, 0, 2)),
        bias_shape=(4, 8),
    ),
    "convolution-1d": _case((3 * 8, 16), _normal(9, 21, 8), nnx.Conv, 8, 16, (3,), 2, padding="CAUSAL"),
    "convolution-2d": _case(
        (3 * 2 * 8, 16), _normal(5, 9, 10, 8), nnx.Conv, 8, 16, (3, 2), padding="CIRCULAR", kernel_dilation=(1, 2)
    ),
    "embedding": _case(
        (40, 24),
        lambda rng, dtype: jnp.asarray(rng.permutation(np.r_[-40:0, rng.integers(0, 40, 20)])),
        nnx.Embed,
        40,
        24,
        has_bias=False,
    ),
}


class _Network(nnx.Module):
    def __init__(self, dtype):
        options = {"param_dtype": dtype, "rngs": nnx.Rngs(0)}
        self.embed = nnx.Embed(WORDS, SIZE, **options)
        self.query, self.key, self.value, self.output = (
            nnx.Linear(*SHAPES[name], use_bias=name in BIASES, **options)
            for name in ("query", "key", "value", "output")
        )
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(1))

    def __call__(self, batch):
        x = self.dropout(self.embed(jnp.asarray(batch)))
        return x + self.output(jnp.tanh(self.query(x)) * self.key(x) + self.value(x))


def network(numbers, dtype):
    model = _Network(dtype)
    model.eval()
    for name in SHAPES:
        _filled(getattr(model, name), numbers[name], numbers.get(f"{name}.bias"))
    return model


class _Branches(nnx.Module):
    def __init__(self):
        self.wide, self.narrow = (nnx.Conv(6, 8, (size, size), rngs=nnx.Rngs(0)) for size in (3, 1))

    def __call__(self, maps):
        return self.wide(maps) + self.narrow(maps)


def branches():
    return _Branches(), _normal(9, 8, 8, 6)(np.random.default_rng(0), "float32")


class _Language(nnx.Module):
    def __init__(self):
        self.embed, self.inner = nnx.Embed(50, 16, rngs=nnx.Rngs(0)), nnx.Linear(16, 16, rngs=nnx.Rngs(1))

    def __call__(self, batch):
        return self.embed.attend(self.inner(self.embed(batch)))


class _Linears(nnx.Module):
    def __init__(self):
        self.first, self.inner, self.second = (nnx.Linear(24, 24, rngs=nnx.Rngs(k)) for k in range(3))
        self.second.kernel = self.first.kernel

    def __call__(self, inputs):
        return self.second(self.inner(self.first(inputs)))


def tied():
    rng = np.random.default_rng(0)
    return {
        "attend": (_Language(), rng.integers(0, 50, (20, 30)), "embed", "embed.attend"),
        "linear": (_Linears(), rng.normal(size=(300, 24)), "first", "second"),
    }


class _Scaled(nnx.Linear):
    def __call__(self, inputs):
        return 2 * super().__call__(inputs)


class _Stack(nnx.Module):
    """Layers whose numbers are stacked, run one after the other."""

    def __init__(self):
        make = nnx.split_rngs(splits=3)(nnx.vmap(lambda rngs: nnx.Linear(32, 32, rngs=rngs)))
        self.layers = make(nnx.Rngs(0))

    def __call__(self, inputs):
        run = nnx.scan(lambda x, layer: (layer(x), None), in_axes=(nnx.Carry, 0), out_axes=(nnx.Carry, 0))
        return run(inputs, self.layers)[0]


class _Odd(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.grouped, self.plain = (
            nnx.Conv(8, 8, (3, 3), feature_group_count=2, rngs=rngs),
            nnx.Linear(8, 32, rngs=rngs),
        )
        self.scaled, self.unused = _Scaled(32, 32, rngs=rngs), nnx.Linear(32, 32, rngs=rngs)
        self.adapted = nnx.LoRALinear(32, 32, lora_rank=4, rngs=rngs)
        self.batched = nnx.Einsum("bhd,hdm->bhm", (4, 8, 8), rngs=rngs)
        self.stack = _Stack()
        self.recurrent = nnx.RNN(nnx.SimpleCell(32, 32, rngs=rngs))

    def __call__(self, maps):
        x = self.adapted(self.scaled(self.plain(self.grouped(maps).mean((1, 2)))))
        x = self.batched(x.reshape(-1, 4, 8)).reshape(-1, 32)
        return self.recurrent(self.stack(x)[:, None])


def left_alone():
    reasons = {
        "grouped": "2 groups",
        "scaled": "a forward pass of its own",
        "unused": "not reached",
        "adapted": "a forward pass of its own",
        "batched": "one matrix for each of its entries",
        "stack.layers": "stack",
        "recurrent.cell.dense_h": "scan of nnx.RNN",
    }
    return _Odd(), _normal(300, 4, 4, 8)(np.random.default_rng(0), "float32"), reasons


def shared():
    layer = nnx.Linear(24, 24, rngs=nnx.Rngs(0))
    return nnx.Sequential(layer, nnx.relu, layer), np.random.default_rng(0).normal(size=(200, 24))


def cubic_loss(outputs, batch):
    return (outputs**3).sum() / 3


class _Named(nnx.Module):
    def __init__(self):
        self.layer = nnx.Linear(16, 16, rngs=nnx.Rngs(0))

    def __call__(self, first, *, last=None, plain=True):
        return self.layer(first) if plain else first  # a traced flag would be an error


def batches(array):
    forms = {"array": array, "tuple": (jnp.asarray(array),), "mapping": {"first": array, "last": None, "plain": True}}
    return {name: (_Named(), batch) for name, batch in forms.items()}


def run(model, batch):
    ready = nnx.clone(model)
    ready.eval()
    return np.asarray(ready(batch))


def numbers(model):
    found = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {".".join(map(str, path)): np.array(variable[...]) for path, variable in found}


def layer(model, name):
    return dict(named_modules(model))[name]


def train(model):
    model.train()


def trains(model):
    return not any(getattr(module, "deterministic", False) for _, module in named_modules(model))
