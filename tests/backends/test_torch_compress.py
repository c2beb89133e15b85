"""Compression of PyTorch modules: what is found, what is gathered, what is put in its place."""

from dataclasses import replace

import numpy as np
import pytest

from mponet.compress import CompressConfig, CompressionPlan, Override
from mponet.errors import CheckpointError, CompressionError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from mponet_torch import MPOEmbedding, MPOLinear, TiedHead, merge  # noqa: E402
from mponet_torch.compression import calibrate, compress, load_compressed, plan, save_compressed  # noqa: E402


class Attention(nn.Module):
    """Three layers that read one tensor, and one that reads what they made."""

    def __init__(self, size):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(size, size, bias=k > 0) for k in range(3))
        self.output = nn.Linear(size, size)

    def forward(self, inputs):
        mixed = torch.softmax(self.query(inputs) @ self.key(inputs).transpose(-1, -2), -1) @ self.value(inputs)
        return inputs + self.output(mixed)


class Language(nn.Module):
    """An embedding tied to the head, with attention in between."""

    def __init__(self, words=50, size=32):
        super().__init__()
        self.embed = nn.Embedding(words, size)
        self.attention = Attention(size)
        self.norm = nn.LayerNorm(size)
        self.head = nn.Linear(size, words, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        return self.head(self.norm(self.attention(self.embed(tokens))))


@pytest.fixture
def model():
    torch.manual_seed(0)
    network = Language().double()
    for layer in (network.attention.query, network.attention.output):  # falling spectra, as trained weights have
        u, _, vh = torch.linalg.svd(layer.weight.detach())
        layer.weight.data = u * torch.arange(1.0, 33.0).double() ** -1.5 @ vh
    return network


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 50, (4, 20), generator=generator) for _ in range(5)]


CONFIG = CompressConfig(keep=0.5, min_weights=100, structures=("low-rank",))


def test_the_original_is_untouched_and_the_copy_has_operators(model, data):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    small, report = compress(model, CONFIG, data)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert small is not model
    assert report.plan.keep <= 0.5
    assert {layer.name for layer in report.plan.replaced} == {
        name for name, module in small.named_modules() if isinstance(module, MPOLinear)
    }
    assert report.plan.network_weights == sum(p.numel() for p in small.parameters())
    assert report.plan.dense_network_weights == sum(p.numel() for p in model.parameters())
    assert small(data[0]).shape == model(data[0]).shape
    assert report.deviation < 0.05


def test_in_place_changes_the_model_itself(model, data):
    same, _ = compress(model, CONFIG, data, in_place=True)
    assert same is model
    assert any(isinstance(module, MPOLinear) for module in model.modules())


def test_layers_that_read_one_tensor_share_sums(model, data):
    sums = calibrate(model, CONFIG, data)
    assert sums.inputs["attention.query"] == sums.inputs["attention.key"] == sums.inputs["attention.value"]
    assert set(sums.sums) == {"embed", "attention.query", "attention.output", "head"}
    inputs = torch.cat([model.embed(batch) for batch in data]).reshape(-1, 32).detach().numpy()
    np.testing.assert_allclose(sums.of("attention.value").products, inputs.T @ inputs, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(sums.of("attention.value").mean, inputs.mean(0), rtol=1e-12, atol=1e-12)
    assert sums.of("attention.query").count == 400


def test_gradients_are_those_of_the_summed_loss(model, data):
    def loss(outputs, tokens):
        return nn.functional.cross_entropy(outputs[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")

    sums = calibrate(model, CONFIG, data, loss=loss)
    squares = []
    for tokens in data:  # by hand: the gradient at the attention's output is that of the residual branch
        kept = {}
        handle = model.attention.output.register_forward_hook(lambda *a, kept=kept: kept.update(y=a[2]))
        value = loss(model(tokens), tokens)
        squares.append(torch.autograd.grad(value, kept["y"])[0].square().mean())
        handle.remove()
    assert sums.gradients["attention.output"] == pytest.approx(float(torch.stack(squares).mean()), rel=1e-9)
    assert all(value > 0 for value in sums.gradients.values())


def test_gradient_products_are_those_of_all_rows_and_only_for_kfac():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(3, 6, 3), nn.Flatten(), nn.Linear(24, 5)).double()
    batches = [torch.randn(7, 3, 6).double() for _ in range(3)]
    config = CompressConfig(keep=0.5, min_weights=1)

    def loss(outputs, batch):
        return (outputs**3).sum()

    sums = calibrate(model, config, batches, loss=loss)
    maps = torch.cat([model[0](batch) for batch in batches]).detach().requires_grad_()
    outputs = model[2](maps.flatten(1))
    slopes = torch.autograd.grad((outputs**3).sum(), [maps, outputs])
    for name, rows in (("0", slopes[0].transpose(1, 2).reshape(-1, 6)), ("2", slopes[1])):
        np.testing.assert_allclose(sums.gradient_products[name].full(), (rows.T @ rows).numpy(), rtol=1e-10)
        assert sums.gradient_rows[name] == len(rows)
        assert sums.gradients[name] == pytest.approx(float(rows.square().mean()), rel=1e-10)
    without = calibrate(model, CompressConfig(keep=0.5, min_weights=1, metric="covariance"), batches, loss=loss)
    assert without.gradients == pytest.approx(sums.gradients)
    assert not without.gradient_products


@pytest.mark.parametrize("keep", [0.7, 0.5, 0.3])
def test_a_trained_network_loses_less_where_layers_are_fitted_to_the_loss(keep):
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(24, 48), nn.Tanh(), nn.Linear(48, 5))
    inputs = torch.randn(1000, 24) * torch.arange(1.0, 25.0) ** -0.5
    labels = (4 * teacher(inputs)).argmax(-1)
    model = nn.Sequential(nn.Linear(24, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()

    def rise(metric):
        config = CompressConfig(keep=keep, min_weights=1, structures=("low-rank",), metric=metric)
        small, report = compress(model, config, [inputs], loss=lambda out, _: summed(out))
        assert report.plan.keep <= keep
        with torch.no_grad():
            return float(summed(small(inputs)) - summed(model(inputs)))

    def summed(outputs):
        return nn.functional.cross_entropy(outputs, labels, reduction="sum")

    assert rise("kfac") < rise("covariance")


@pytest.mark.parametrize("keep", [0.7, 0.4])
def test_predicted_errors_are_those_of_the_layers_outputs(model, data, keep):
    small, report = compress(model, CompressConfig(keep=keep, min_weights=100, bias_correction=False), data)
    seen = {}
    for name in report.output_errors:
        hook = lambda _, inputs, outputs, name=name: seen.setdefault(name, []).append((inputs[0], outputs))  # noqa: E731
        model.get_submodule(name).register_forward_hook(hook)
    with torch.no_grad():
        for batch in data:
            model(batch)
        for name, pairs in seen.items():
            layer, dense = small.get_submodule(name), model.get_submodule(name)
            bias = 0 if dense.bias is None else dense.bias
            wanted = torch.cat([outputs - bias for _, outputs in pairs])
            got = torch.cat([layer(inputs) - bias for inputs, _ in pairs])
            error = float((wanted - got).norm() / wanted.norm())
            assert report.output_errors[name] == pytest.approx(error, rel=1e-6)
            assert report.plan[name].output_error == pytest.approx(error, rel=0.05)


def test_a_matrix_of_low_rank_is_found_and_replaced_exactly(model, data):
    model.attention.key.weight.data = torch.randn(32, 5).double() @ torch.randn(5, 32).double()
    small, report = compress(model, CompressConfig(error=1e-7, min_weights=100, structures=("low-rank",)), data)
    assert report.plan["attention.key"].bonds == (5,)
    assert [layer.name for layer in report.plan.replaced] == ["attention.key"]
    torch.testing.assert_close(small(data[0]), model(data[0]), rtol=1e-12, atol=1e-12)


def test_mode_gradients_dtype_and_names_are_kept(model, data):
    model.float().train()
    model.attention.value.requires_grad_(False)
    small, _ = compress(model, CONFIG, data)
    assert small.training
    assert not any(p.requires_grad for p in small.attention.value.parameters())
    assert all(p.requires_grad for p in small.attention.output.parameters())
    assert all(p.dtype == torch.float32 for p in small.parameters())
    assert all(module.training for module in small.modules())
    assert small.head.weight is small.embed.weight


TIED = CompressConfig(keep=0.5, min_weights=100, structures=("low-rank",), include=["embed", "head"])


def test_a_tied_head_is_compressed_with_its_embedding(model, data, tmp_path):
    small, report = compress(model, TIED, data)
    assert [layer.name for layer in report.plan.replaced] == ["embed"]
    assert isinstance(small.embed, MPOEmbedding)
    assert isinstance(small.head, TiedHead) and small.head.embedding is small.embed
    assert "head.embedding.core1" not in small.state_dict()
    assert report.plan.network_weights == sum(p.numel() for p in small.parameters())
    assert report.plan.network_keep < 1.0 and report.plan.keep <= 0.5
    # both errors are those of the modules' own outputs
    hidden = torch.cat([model.norm(model.attention(model.embed(tokens))) for tokens in data])
    for name, inputs in (("embed", torch.cat(data)), ("head", hidden)):
        with torch.no_grad():
            wanted, found = model.get_submodule(name)(inputs), small.get_submodule(name)(inputs)
        error = float((wanted - found).norm() / wanted.norm())
        assert report.output_errors[name] == pytest.approx(error, rel=1e-9)
        assert report.plan[name].output_error == pytest.approx(error, rel=1e-9)
    save_compressed(small, report.plan, tmp_path)
    again = load_compressed(Language().double(), tmp_path)
    assert again.head.embedding.core1 is again.embed.core1
    assert torch.equal(again(data[0]), small(data[0]))
    # trained, they stay one
    small(data[0]).square().sum().backward()
    assert small.embed.core1.grad is not None
    assert small.head.embedding.core1 is small.embed.core1


def test_a_tied_pair_may_be_skipped(model, data):
    made = plan(model, replace(TIED, tied="skip", include=None), data)
    assert made["head"].reason == made["embed"].reason == "its weight is tied"


def test_tied_modules_keep_their_own_biases_and_padding():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Embedding(40, 16, padding_idx=0), nn.Embedding(40, 16)
            self.second.weight = self.first.weight
            self.one, self.two = nn.Linear(16, 16), nn.Linear(16, 16)
            self.two.weight = self.one.weight
            self.head = nn.Linear(16, 40)
            self.head.weight = self.first.weight
            self.bias = self.head.bias  # as BERT's decoder has it

        def forward(self, tokens):
            return self.head(self.two(self.one(self.first(tokens) + self.second(tokens)).tanh()))

    torch.manual_seed(0)
    model = Shared().double()
    data = [torch.randint(0, 40, (8, 12)) for _ in range(3)]
    kept = model.bias
    config = CompressConfig(keep=0.6, min_weights=1, overrides={"one": Override(keep=0.7)})
    small, report = compress(model, config, data, in_place=True)
    assert {layer.name for layer in report.plan.replaced} == {"first", "one"}
    assert small.bias is kept is small.head.bias
    assert small.second.core1 is small.first.core1 is small.head.embedding.core1
    assert small.two.core1 is small.one.core1 and small.two.bias is not small.one.bias
    assert small.first.padding_idx == 0 and small.second.padding_idx is None
    assert report.plan.network_weights == sum(p.numel() for p in small.parameters())
    dense, merged = merge(small)
    assert merged.deviations.keys() == {"first", "second", "one", "two", "head"}
    assert merged.deviation < 1e-14
    assert dense.second.weight is dense.first.weight is dense.head.weight and dense.two.weight is dense.one.weight
    assert dense.head.bias is dense.bias
    assert type(dense.first) is nn.Embedding and type(dense.head) is type(dense.one) is nn.Linear
    assert sum(p.numel() for p in dense.parameters()) == report.plan.dense_network_weights
    with torch.no_grad():
        torch.testing.assert_close(dense(data[0]), small(data[0]), rtol=1e-10, atol=1e-12)


def test_every_kind_of_layer_is_merged_and_keeps_its_state():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(8 * 36, 10)
    model = nn.Sequential(*layers)
    model[4].weight.requires_grad_(False)
    seen = []
    model[4].register_forward_hook(lambda *_: seen.append(1))
    small, report = compress(model, CompressConfig(error=0.5, min_weights=1), [torch.randn(4, 3, 6, 6)])
    assert len(report.plan.replaced) == 3
    dense, merged = merge(small.eval())
    assert [type(layer) for layer in dense] == [type(layer) for layer in model]
    assert not dense.training and isinstance(small[4], MPOLinear)
    assert not dense[4].weight.requires_grad and dense[0].weight.requires_grad
    assert set(merged.deviations) == {"0", "2", "4"} and merged.deviation < 1e-6
    inputs = torch.randn(2, 3, 6, 6)
    seen.clear()
    with torch.no_grad():
        torch.testing.assert_close(dense(inputs), small(inputs), rtol=1e-4, atol=1e-5)
    assert len(seen) == 2
    same, _ = merge(small, in_place=True)
    assert same is small
    assert isinstance(merge(MPOLinear(8, 8, 2))[0], nn.Linear)
    broken = nn.Sequential(MPOLinear(8, 8, 2))
    nn.init.constant_(broken[0].core1, float("nan"))
    with pytest.raises(CompressionError, match="0 cannot be merged: core 1 has 32 non-finite"):
        merge(broken, in_place=True)
    assert isinstance(broken[0], MPOLinear)


def test_an_embedding_that_computes_something_else_is_left():
    class Scaled(nn.Embedding):
        def forward(self, tokens):
            return super().forward(tokens) * 4.0

    made = plan(nn.Sequential(Scaled(40, 16), nn.Linear(16, 40)), CompressConfig(keep=0.5, min_weights=1))
    assert "Scaled" in made["0"].reason and "computes something else" in made["0"].reason


def test_modules_that_cannot_be_replaced_are_left_with_the_reason():
    class Scaled(nn.Linear):
        def forward(self, inputs):
            return 2 * super().forward(inputs)

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.scaled = nn.Linear(32, 32), Scaled(32, 32)
            self.attention = nn.MultiheadAttention(32, 4, batch_first=True)

        def forward(self, inputs):
            hidden = self.scaled(self.first(inputs))
            return self.attention(hidden, hidden, hidden)[0]

    made = plan(Encoder(), CONFIG, [torch.randn(4, 50, 32)])
    assert "Scaled" in made["scaled"].reason
    assert made["attention.out_proj"].reason == "not reached by the calibration data"
    assert made["first"].matched


def test_a_module_used_twice_is_replaced_in_both_places():
    layer = nn.Linear(24, 24)
    network = nn.Sequential(layer, nn.ReLU(), layer)
    small, report = compress(network, CompressConfig(keep=0.5, min_weights=1), [torch.randn(200, 24)])
    assert isinstance(small[0], MPOLinear)
    assert small[0] is small[2]
    assert len(report.plan.replaced) == 1


def test_plans_are_carried_out_after_editing_and_saving(model, data, tmp_path):
    made = plan(model, CONFIG, data)
    made.replace("attention.query", bond=3).save(tmp_path / "plan.json")
    small, report = compress(model, CompressionPlan.load(tmp_path / "plan.json"), data)
    assert small.attention.query.shape.bond_dims == (1, 3, 1)
    assert set(report.output_errors) == {layer.name for layer in report.plan.replaced}


@pytest.mark.parametrize("batch", [lambda x: x, lambda x: (x,), lambda x: {"input": x}])
def test_batches_are_tensors_tuples_or_mappings(batch):
    network = nn.Sequential(nn.Linear(16, 16))
    config = CompressConfig(keep=0.5, min_weights=1)
    if isinstance(batch(torch.zeros(1)), dict):
        network = nn.ModuleDict({"layer": network})
        network.forward = lambda input: network["layer"](input)
    assert calibrate(network, config, [batch(torch.randn(40, 16))]).sums


def test_mistakes_leave_the_model_as_it_was(model, data):
    model.train()
    wanted = [p.requires_grad for p in model.parameters()]
    for call, text in (
        (lambda: compress(model, CONFIG, [], in_place=True), "holds no batch"),
        (lambda: compress(model, CompressConfig(keep=0.5, include=["quary"]), data, in_place=True), "attention.query"),
        (lambda: compress(model, CompressConfig(keep=0.0001, min_weights=100), data, in_place=True), "budget"),
    ):
        with pytest.raises(CompressionError, match=text):
            call()
    model.attention.output.weight.data[0, 0] = float("nan")
    with pytest.raises(CompressionError, match="not finite"):
        compress(model, CONFIG, data, in_place=True)
    assert not any(isinstance(module, MPOLinear) for module in model.modules())
    assert all(module.training for module in model.modules())
    assert [p.requires_grad for p in model.parameters()] == wanted
    assert not any(module._forward_hooks for module in model.modules())


def test_given_factors_and_bonds(model, data):
    overrides = {r".*query": Override(input_dims=(4, 8), output_dims=(8, 4), bond=6)}
    small, _ = compress(model, CompressConfig(keep=0.6, min_weights=100, overrides=overrides), data)
    assert str(small.attention.query.shape) == "M^{8,4}_{4,8}(6)"


def test_layers_of_hugging_face_with_transposed_weights(data):
    pytest.importorskip("transformers")
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=32, n_embd=32, n_layer=2, n_head=2)).eval()
    small, report = compress(model, CompressConfig(keep=0.6, min_weights=100, structures=("low-rank",)), data)
    assert {layer.type_name for layer in report.plan.replaced} == {"Conv1D"}
    layer = model.transformer.h[0].mlp.c_fc
    layer.weight.data = torch.randn(32, 5) @ torch.randn(5, 128)
    same, report = compress(model, CompressConfig(error=1e-4, min_weights=100, structures=("low-rank",)), data)
    assert report.plan["transformer.h.0.mlp.c_fc"].bonds == (5,)
    torch.testing.assert_close(same(data[0]).logits, model(data[0]).logits, rtol=1e-4, atol=1e-5)
    assert torch.isfinite(small.generate(data[0][:, :4], max_new_tokens=4)).all()


@pytest.mark.parametrize("structures", [("low-rank",), ("window",), ("low-rank", "window")])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": (3, 2), "stride": 2, "dilation": (1, 2), "bias": False},
        {"kernel_size": 3, "padding": "same", "padding_mode": "reflect"},
    ],
)
def test_convolutions_lose_what_the_plan_says(structures, options):
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 16, **options).double()
    maps = [torch.randn(3, 8, 9, 10).double().cumsum(-1) for _ in range(4)]
    config = CompressConfig(keep=0.5, min_weights=1, structures=structures, bias_correction=False)
    small, report = compress(nn.Sequential(conv), config, maps)
    (name,) = report.output_errors
    bias = 0 if conv.bias is None else conv.bias[:, None, None]
    with torch.no_grad():
        wanted = torch.cat([conv(batch) - bias for batch in maps])
        found = torch.cat([small(batch) - bias for batch in maps])
    error = float((wanted - found).norm() / wanted.norm())
    assert report.output_errors[name] == pytest.approx(error, rel=1e-6)
    assert report.plan[name].output_error == pytest.approx(error, rel=0.05)


def test_a_convolution_of_one_axis_and_an_embedding():
    torch.manual_seed(0)

    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.conv = nn.Embedding(40, 24), nn.Conv1d(24, 32, 3)

        def forward(self, tokens):
            return self.conv(self.table(tokens).transpose(1, 2))

    model, tokens = Words().double(), [torch.randint(0, 30, (4, 12)) for _ in range(8)]
    options = {"min_weights": 1, "structures": ("low-rank", "window"), "bias_correction": False}
    config = CompressConfig(keep=0.6, overrides={"table": Override(keep=0.5)}, **options)
    small, report = compress(model, config, tokens)
    assert {"table", "conv"} == set(report.output_errors)
    inputs = torch.cat(tokens)
    with torch.no_grad():
        wanted, found = model.table(inputs), small.table(inputs)
        assert report.output_errors["table"] == pytest.approx(float((wanted - found).norm() / wanted.norm()), rel=1e-6)
        bias = model.conv.bias[:, None]
        maps = wanted.transpose(1, 2)
        wanted, found = model.conv(maps) - bias, small.conv(maps) - bias
        assert report.output_errors["conv"] == pytest.approx(float((wanted - found).norm() / wanted.norm()), rel=1e-6)


def test_grouped_convolutions_are_left_with_the_reason():
    model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 16, 3))
    made = plan(model, CompressConfig(keep=0.5, min_weights=1, structures=("low-rank",)), [torch.randn(9, 8, 8, 8)])
    assert "2 groups" in made["0"].reason
    assert made["1"].replaced


def test_compressed_models_are_saved_and_loaded(model, data, tmp_path):
    small, report = compress(model, CONFIG, data)
    save_compressed(small, report.plan, tmp_path / "small")
    assert {path.name for path in (tmp_path / "small").iterdir()} == {"compression_plan.json", "model.safetensors"}
    torch.manual_seed(5)
    again = load_compressed(Language().double(), tmp_path / "small")
    torch.testing.assert_close(again(data[0]), small(data[0]), rtol=0, atol=0)
    assert again.head.weight is again.embed.weight
    with pytest.raises(CompressionError, match="network and the plan of the same compression"):
        save_compressed(model, report.plan, tmp_path / "other")
    with pytest.raises(CompressionError, match="attention"):
        load_compressed(nn.Sequential(nn.Linear(4, 4)), tmp_path / "small")
    with pytest.raises(CompressionError):
        load_compressed(Language(size=16).double(), tmp_path / "small")
    with pytest.raises(CheckpointError, match="does not hold the weights"):
        load_compressed(Language(words=60).double(), tmp_path / "small")
    (tmp_path / "small" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="does not hold the weights"):
        load_compressed(Language().double(), tmp_path / "small")


def test_rows_per_example_are_counted_in_data_or_in_an_example(model, data):
    config = CompressConfig(multiplications=0.5, min_weights=100, structures=("low-rank",))
    made = plan(model, config, data)
    assert made["attention.query"].positions == made["head"].positions == made["embed"].positions == 20
    before, after = made.multiplications
    assert before == 20 * (4 * 32 * 32 + 50 * 32)
    assert after <= 0.5 * before
    without = plan(model, config, example=data[0])
    assert {layer.name: layer.positions for layer in without} == {layer.name: layer.positions for layer in made}
    assert not model.head._forward_hooks
    maps = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1))
    made = plan(maps, CompressConfig(multiplications=0.5, min_weights=1), example=torch.randn(2, 3, 8, 8))
    assert (made["0"].positions, made["2"].positions) == (64, 16)
    assert made.multiplications[0] == 64 * 27 * 8 + 16 * 72 * 8
    assert plan(maps, CompressConfig(keep=0.5, min_weights=1))["0"].positions == 1


def test_a_replacement_keeps_what_its_module_had(model, data):
    for parameter in (model.embed.weight, model.attention.query.weight):
        parameter.requires_grad_(False)
    seen = []
    handle = model.head.register_forward_hook(lambda *_: seen.append("head"))
    model.embed.register_forward_pre_hook(lambda *_: seen.append("embed"))
    model.embed.eval()
    config = replace(TIED, include=["embed", "head", "query", "value"], overrides={".*": Override(keep=0.5)})
    small, report = compress(model, config, data, in_place=True)
    assert {layer.name for layer in report.plan.replaced} == {"embed", "attention.query", "attention.value"}
    assert not any(p.requires_grad for p in (*small.embed.parameters(), *small.attention.query.parameters()))
    assert all(p.requires_grad for p in small.attention.value.parameters())
    assert small.head.training and not small.embed.training
    seen.clear()
    small(data[0])
    assert seen == ["embed", "head"]
    handle.remove()  # by the handle of the module that was replaced
    small(data[0])
    assert seen == ["embed", "head", "embed"]


def test_modules_that_accelerate_moves_are_refused():
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    model[0]._hf_hook = object()
    made = plan(model, CompressConfig(keep=0.5, min_weights=1))
    assert "load the model on one device" in made["0"].reason and made["1"].matched
    meta = plan(
        nn.Sequential(nn.Linear(16, 16, device="meta"), nn.Linear(16, 16)), CompressConfig(keep=0.5, min_weights=1)
    )
    assert "on the meta device" in meta["0"].reason


def test_measured_speeds_are_positive_and_leave_the_model_as_it_was(model, data):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    made = plan(model, CONFIG, data, measure=True)
    assert all(layer.measured > 0 for layer in made.replaced)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(isinstance(module, MPOLinear) for module in model.modules())


def test_convolutions_and_embeddings_are_timed_on_the_shapes_of_the_calibration():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(40, 64), nn.Unflatten(1, (4, 8)), nn.Conv2d(4, 16, 3), nn.Flatten(1))
    made = plan(model, CompressConfig(keep=0.4, min_weights=1), [torch.randint(0, 40, (8, 32))], measure=True)
    assert made.replaced
    assert all(layer.measured > 0 for layer in made.replaced)
    unseen = plan(model, CompressConfig(keep=0.4, min_weights=1), measure=True)
    assert all(layer.measured is None for layer in unseen.replaced)  # no batch, so no shape


def test_a_killed_compression_goes_on_to_the_same_weights(model, data, tmp_path):
    whole, _ = compress(model, CONFIG, data, folder=tmp_path / "whole")
    plain, _ = compress(model, CONFIG, data)
    stopped = []

    def progress(step, done, count):
        stopped.append(step)
        if step == "fit":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress(model, CONFIG, data, folder=tmp_path / "again", progress=progress)
    steps = []
    again, report = compress(model, CONFIG, data, folder=tmp_path / "again", progress=lambda *call: steps.append(call))
    assert {step for step, _, _ in steps} == {"search", "fit"}
    for other in (plain, again):
        assert all(torch.equal(whole.state_dict()[name], value) for name, value in other.state_dict().items())
    files = [{file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("whole", "again")]
    assert files[0] == files[1]
    assert report.plan == plan(model, CONFIG, data)


def test_upstream_fits_layers_to_what_they_get_from_compressed_ones():
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(32, 32), nn.Tanh()) for _ in range(4)]
    model = nn.Sequential(*blocks).double()
    inputs = [torch.randn(100, 32).double() @ torch.randn(32, 32).double() / 6 for _ in range(4)]
    config = CompressConfig(keep=0.4, min_weights=1, structures=("low-rank",), metric="covariance")
    plain, report = compress(model, config, inputs)
    better, same = compress(model, config, inputs, upstream=True)
    assert same.plan == report.plan
    errors = [sum((net(x) - model(x)).detach().norm().item() for x in inputs) for net in (plain, better)]
    assert errors[1] < errors[0]
    for refused, words in ((None, "NoneType"), (iter(inputs), "iterator"), (calibrate(model, config, inputs), "Cal")):
        with pytest.raises(CompressionError, match=words):
            compress(model, config, refused, upstream=True)
    with pytest.raises(CompressionError, match="in_place"):
        compress(model, config, inputs, upstream=True, in_place=True)
