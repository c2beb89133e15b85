"""Prints docs/compression.md from the files in docs/measured, and draws its charts.

A section appears when its file is there.  The commands that write the files are in the page.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from compression_crossings import structures
from compression_networks import edge_maps, images, one_shot, sentence_encoder, sounds, transformer
from compression_parts import Figures, accuracy, cells, item, percent, spread, table, written
from compression_summary import SUMMARY

HERE = Path(__file__).parent
MEASURED = HERE / "measured"

HEAD = """# What compression costs and gains

`python docs/compression.py > docs/compression.md` makes this page from the files in
`docs/measured`; each section names the command that writes its file. All of it was measured on two
CPU cores, beside other work. *Keep* is the share of the weights of the replaced layers that is
left. [Compress your model](compress.md) says how to do it.

**In short**
"""


def page() -> Iterator[str]:
    """Lines of the page."""
    yield HEAD
    measured = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in MEASURED.glob("*.json")}
    yield from (item(text(measured[name])) for name, text in SUMMARY.items() if name in measured)
    for name, section in SECTIONS.items():
        if name in measured:
            yield ""
            yield from section(measured[name])


# ---------------------------------------------------------------- the suite


def from_scratch(found: Figures) -> Iterator[str]:
    """Low rank against MPO, both trained from scratch."""
    yield """## FC2 from scratch: the comparison that the paper lacks

    mponet suite --models fc2:2,fc2:4,fc2:8,fc2:16,fc2:22 --variants dense,mpo,low-rank \\
        --seeds 2 --data mnist --epochs 8

The variant `low-rank` has the layers of the MPO variant with factors of one, at the rank whose
number of weights is nearest. A rank is at least 1: at D = 2 it has 3.6 times the weights of the
MPO's first layer. Accuracy on MNIST in %, after the last of 8 epochs, mean ± sample standard
deviation of two seeds.
"""
    yield from table("bond", "rho of mpo", "mpo", "rho of low rank", "low rank", "dense")
    for row in found["rows"]:
        dense, mpo, low = (accuracy(row[name]["last"]) for name in ("normal", "mpo", "low_rank"))
        yield cells(row["bond"], f"{row['rho']:.4f}", mpo, f"{row['low_rank_rho']:.4f}", low, dense)
    yield """
At equal weights the MPO wins at every bond. Low rank sees the image through a handful of fixed
filters. The MPO's matrix has full rank, whatever the bond."""


def other_way_round(found: Figures) -> Iterator[str]:
    """The paper's operators compressed from trained networks."""
    yield f"""## The paper's question the other way round

    python benchmarks/compress_suite.py --heal-epochs {found["heal_epochs"]}

The paper trains MPO networks from scratch. Here FC2 and LeNet-5 are trained dense on MNIST, and
their layers become the paper's operators, with its factors and bonds, fitted to the covariance of
the inputs. *Healed* is after {found["heal_epochs"]} epochs of distillation from the dense network,
which itself was trained for {found["epochs"]}. Low rank has the nearest number of weights.
"""
    measured = found["cells"]
    yield from table(
        "network", "bond", "rho", "mpo, one shot", "mpo, healed", "low rank, one shot", "low rank, healed", "dense"
    )
    for name, row in measured.items():
        network, bond, *variant = name.split(" ")
        if variant != ["mpo"]:
            continue
        low = measured.get(f"{network} {bond} low-rank", {})
        yield cells(
            network,
            bond,
            f"{row['rho']:.4f}",
            *(percent(one.get(key)) for one in (row, low) for key in ("one_shot", "healed")),
            percent(measured[f"{network} dense"]["accuracy"]),
        )


# ---------------------------------------------------------------- real networks


def balanced(found: Figures) -> Iterator[str]:
    """Least squares against TT-SVD."""
    rows = found["cells"]
    yield f"""## Balanced operators: least squares against TT-SVD

    python benchmarks/compress_balanced.py

Every query and output projection of SmolLM2-135M (576 x 576) as a balanced operator of two sites
at keep {found["keep"]}. Relative error of the layer's outputs, median and largest over the layers.
*Halved* counts the layers where least squares at least halves the error of TT-SVD.
"""
    yield from table("layers", "TT-SVD", "least squares", "whitened SVD", "halved", "largest ratio")
    for kind in ("q_proj", "o_proj"):
        chosen = [row for name, row in rows.items() if name.endswith(kind)]
        if not chosen:
            continue
        ratios = [row["least_squares"] / row["tt_svd"] for row in chosen]
        yield cells(
            kind,
            *(spread([row[key] for row in chosen]) for key in ("tt_svd", "least_squares", "whitened_svd")),
            f"{sum(ratio <= 0.5 for ratio in ratios)} of {len(ratios)}",
            f"{max(ratios):.2f}",
        )


def orders(found: Figures) -> Iterator[str]:
    """What symmetries of a network give to balanced operators."""
    yield f"""## The order of hidden units

    python benchmarks/compress_orders.py

The hidden units of an MLP may stand in any order, and the values of a head in any basis, and the
network computes the same; a chain of balanced sites does feel it. Relative error of TT-SVD over two
sites, at keep {" and ".join(map(str, found["keeps"]))}, all matrices of a kind together. *Clustered* is average
linkage of cosine distances, *singular basis* that of a head's value and output matrices. *Legs* are
the factors of all these matrices: *crossed*, the first site has the fast factor of the inputs. The
search of `compress` leaves them as they are: less than a hundredth of the error is gained, and a
layer would copy its inputs into another order in every call.
"""
    yield from table("network", "matrices", "order", *(f"keep {keep}" for keep in found["keeps"]))
    for name, errors in found["cells"].items():
        network, kind, order = name.split(" ", 2)
        yield cells(network, kind, order, *(f"{error:.4f}" for error in errors))


def language_model(found: Figures) -> Iterator[str]:
    """SmolLM2, one shot and healed, with text that it writes."""
    rows = {keep: row for keep, row in found.items() if isinstance(row, dict) and "healed" in row}
    dense = next(iter(rows.values()))["dense"]
    texts = list(dense["perplexity"])
    yield """## A language model: SmolLM2-135M

    python benchmarks/heal_smollm2.py FOLDER --keep 0.8 --json docs/measured/heal-smollm2.json

All 210 linear layers. The calibration is 8192 tokens of every other topic of `pydoc_data.topics`;
healing sees all tokens of those topics. Perplexity on the other topics, which are the healed
domain, and on the GNU GPL, another one. The learning rates were chosen by shorter runs on the same
texts: 6e-5 for keep 0.8, 1e-4 for keep 0.6. At keep 0.8 the calibration has the gradients of the
text's own tokens (`--sums` with the file of `compress_smollm2.py --labels --sums`), at 0.6 those of
drawn ones.
"""
    yield from table("keep", "state", *texts, "seconds of healing", "tokens")
    yield cells("1", "dense", *(f"{dense['perplexity'][text]:.2f}" for text in texts), "", "")
    for keep, row in sorted(rows.items(), reverse=True):
        for state in ("one shot", "healed"):
            healing = (row["healing"]["seconds"], row["healing"]["tokens"]) if state == "healed" else ("", "")
            yield cells(keep, state, *(f"{row[state]['perplexity'][text]:.2f}" for text in texts), *healing)
    yield "\nWhat the networks write after one prompt, always the likeliest token:\n"
    yield item(f"dense: {written(dense['text'][0])}")
    for keep, row in sorted(rows.items(), reverse=True):
        for state in ("one shot", "healed"):
            yield item(f"keep {keep}, {state}: {written(row[state]['text'][0])}")


def quantised(found: Figures) -> Iterator[str]:
    """Against rounding to few bits."""
    rows = found["cells"]
    yield f"""## Against quantisation

    python benchmarks/compress_quantized.py

The 210 linear layers of SmolLM2-135M rounded to nearest in groups of {found["group"]} with 16-bit
scales, dense and compressed one shot. Perplexity on two held-out texts. *MB* is that of these
layers; 16 bits are those of a file, nothing was rounded.
"""
    texts = [name for name in next(iter(rows.values())) if name not in ("bits", "bytes", "keep")]
    yield from table("keep", "bits", "MB", *texts)
    for name, row in sorted(rows.items(), key=lambda pair: -pair[1]["bytes"]):
        keep = name.split(" ")[0].replace("dense", "1")
        yield cells(keep, row["bits"], f"{row['bytes'] / 1e6:.1f}", *(f"{row[text]:.2f}" for text in texts))
    yield """
Compare rows of equal size. Keep 0.6 takes 127 MB at 16 bits, more than the dense network at 8 bits.
The two multiply, and operators buy what bits do not: fewer multiplications. So compress for speed,
heal, and round the cores last."""


def speed(found: Figures) -> Iterator[str]:
    """Tokens and sentences per second."""
    yield f"""## Speed of whole networks

    python benchmarks/compress_speed.py

Every linear layer of the blocks is low rank with the share *keep* of its weights, its numbers
random, since the speed depends on the sizes alone. Prompts have {found["prompt"]} tokens, sentences
{found["sentence"]}; float32, {found["threads"]} threads, PyTorch {found["torch"]}. Per second: tokens of SmolLM2-135M
read (*prefill*) and written (*decode*, with a cache; compiled without one), sentences of MiniLM-L6.
In brackets the speed over that of the dense network, medians of interleaved calls. *Frozen* is
after `mponet_torch.freeze`.  Where *keep* is *speed* the budget is one of multiplications with
measured times, which leaves a layer dense that would be slower.
"""
    yield from table("network", "keep", "pass", "batch", "mode", "dense", "compressed", "frozen", "spread")
    for name, row in found["cells"].items():
        network, keep, which, batch, mode = name.split(" ")
        values = (
            f"{row[kind]['per_second']:.1f} ({row[kind]['speedup']:.2f})" if kind in row else ""
            for kind in ("compressed", "frozen")
        )
        if "dense" not in row:
            yield cells(network, keep, which, batch, mode, "all layers are left dense", "", "", "")
            continue
        spread = max(times["spread"] for times in row.values() if "spread" in times)
        yield cells(
            network, keep, which, batch, mode, f"{row['dense']['per_second']:.1f}", *values, f"{100 * spread:.0f} %"
        )


SECTIONS = {
    "low-rank": from_scratch,
    "compress-suite": other_way_round,
    "compress-structures": structures,
    "heal-smollm2": language_model,
    "compress-smollm2": one_shot,
    "compress-balanced": balanced,
    "compress-orders": orders,
    "compress-minilm": sentence_encoder,
    "compress-efficientnet": images,
    "compress-crepe": sounds,
    "compress-hed": edge_maps,
    "compress-flax": transformer,
    "compress-quantized": quantised,
    "compress-speed": speed,
}

if __name__ == "__main__":
    print("\n".join(page()))
