"""Sections of docs/compression.md: networks for sentences, images, sounds, edges and bytes."""

from collections.abc import Iterator

from compression_parts import Figures, cells, percent, table


def one_shot(found: Figures) -> Iterator[str]:
    """SmolLM2 without healing: shares, the tied table, corrected plans."""
    yield f"""## SmolLM2-135M, one shot

    python benchmarks/compress_smollm2.py

The same texts, without healing. *Tied* compresses the table of 49152 x 576, which is the embedding
and the head, with the linear layers, at the same share of all of them; *corrected* measures the
loss of groups of layers on 2048 of the calibration tokens and shares the budget again. *Labels*
takes the gradients of the text's own tokens as the next ones; by default they are drawn from what
the network predicts. *Network* is the share of all weights. Seconds to calibrate and to compress
(threads: {found["threads"]}), beside other work, none for a run that was paused, and the process' largest memory.
"""
    dense = found["cells"]["dense"]["perplexity"]
    yield from table("keep", "way", "network", *dense, "seconds", "GiB")
    yield cells("1", "dense", "1", *(f"{value:.2f}" for value in dense.values()), "", "")
    for name, row in found["cells"].items():
        if name != "dense":
            seconds = sum(row["seconds"].values()) + row["calibration_seconds"] if "seconds" in row else None
            texts = (f"{value:.2f}" for value in row["perplexity"].values())
            way = name.partition(" ")[2].replace("correct", "corrected")
            yield cells(
                f"{row['keep']:.3f}",
                way,
                f"{row['network']:.3f}",
                *texts,
                "" if seconds is None else f"{seconds:.0f}",
                f"{row['gigabytes']:.1f}",
            )


def sentence_encoder(found: Figures) -> Iterator[str]:
    """MiniLM."""
    yield f"""## Sentence embeddings: MiniLM-L6

    python benchmarks/compress_minilm.py

The 36 encoder linears of all-MiniLM-L6-v2. Pearson's correlation with the human similarities of
Lee's 50 documents, Spearman's with WordSim-353. Calibration and healing ({found["heal_steps"]}
steps) see 300 other news documents.
"""
    dense = found["cells"]["dense"]
    yield from table("keep", "way", "Lee", "WordSim", "Lee, healed", "WordSim, healed")
    yield cells("1", "dense", *(f"{dense[key]:.3f}" for key in ("lee", "wordsim")), "", "")
    for name, row in found["cells"].items():
        if name != "dense":
            way, _, keep = name.rpartition(" ")
            healed = row.get("healed")
            yield cells(
                keep,
                way,
                *(f"{row['one_shot'][key]:.3f}" for key in ("lee", "wordsim")),
                *(f"{healed[key]:.3f}" if healed else "" for key in ("lee", "wordsim")),
            )


def images(found: Figures) -> Iterator[str]:
    """EfficientNet-lite0."""
    yield f"""## Images: EfficientNet-lite0

    python benchmarks/compress_efficientnet.py

The 1x1 convolutions and the head. Labels found of foolbox's 20 images of ImageNet, classes that
agree with the dense network's, relative error of the logits. Calibration and healing
({found["heal_steps"]} steps) see other photographs.
"""
    yield from table(
        "keep", "way", "top 1", "top 5", "agrees", "error", "top 1, healed", "agrees, healed", "error, healed"
    )
    for name, row in found["cells"].items():
        way, _, keep = name.rpartition(" ") if name != "dense" else ("dense", "", "1")
        one = row.get("one_shot", row)
        healed = row.get("healed")
        yield cells(
            keep,
            way,
            *(one[key] for key in ("top1", "top5", "agrees")),
            f"{one['error']:.3f}",
            *((healed["top1"], healed["agrees"], f"{healed['error']:.3f}") if healed else ("", "", "")),
        )


def sounds(found: Figures) -> Iterator[str]:
    """CREPE."""
    yield f"""## Pitch: CREPE

    python benchmarks/compress_crepe.py

All convolutions but the first, and the classifier. Share of {found["tones"]} synthetic tones whose
pitch is found within 50 cents, and the median distance in cents. One shot, without data.
"""
    yield from table("keep", "way", "within 50 cents", "median distance")
    for name, row in found["cells"].items():
        way, _, keep = name.rpartition(" ") if name != "dense" else ("dense", "", "1")
        one = row.get("one_shot", row)
        yield cells(keep, way, percent(one["within_50_cents"]), f"{one['median_cents']:.1f}")


def edge_maps(found: Figures) -> Iterator[str]:
    """HED in Keras."""
    yield """## Convolutions: HED, a VGG-16 in Keras

    python benchmarks/compress_hed.py

The 3x3 convolutions of HED, which draws the edges of photographs. The first five rows of each
budget give every layer the same share of its weights, fitted to the weights alone; the others
allocate jointly with photographs for calibration. *Weights lost* is the relative error of the
kernels, the map's error its mean absolute difference, *F1* that of the pixels above a half; all on
the right halves of the photographs, whose left halves calibrate, and on another photograph. A fit
to photographs leaves free what no patch of them excites, so that its error of the kernels says
nothing.
"""
    yield from table("keep", "way", "weights lost", "map's error", "correlation", "F1", "F1, another photo")
    budgets = sorted(found["cells"].items(), key=lambda item: -float(item[0].partition(" ")[0]))
    for name, row in budgets:
        way = name.partition(" ")[2]
        plain = way in found["splits"]
        way = f"{way}: {found['splits'][way]}" if plain else f"{way} ({', '.join(row['structures'])})"
        lost = f"{row['weights']:.3f}" if plain else ""
        figures = (f"{row[key]:.3f}" for key in ("correlation", "edges", "other"))
        yield cells(f"{row['keep']:.3f}", way, lost, f"{row['map']:.4f}", *figures)


def transformer(found: Figures) -> Iterator[str]:
    """A small one of flax.nnx."""
    yield f"""## A transformer of flax.nnx

    python benchmarks/compress_flax.py

Four blocks of width 128 that read bytes, trained for {found["steps"]} steps on real text. Bits per
byte on held-out text of the domain that healing ({found["heal_steps"]} steps) sees, and of another.
"""
    dense = found["cells"]["dense"]
    yield from table("keep", "operators", *dense, *(f"{name}, healed" for name in dense))
    yield cells("1", "dense", *(f"{value:.3f}" for value in dense.values()), *("" for _ in dense))
    for name, row in found["cells"].items():
        if name != "dense":
            values = (*row["one_shot"].values(), *row.get("healed", dict.fromkeys(dense)).values())
            shown = ("" if value is None else f"{value:.3f}" for value in values)
            yield cells(f"{row['keep']:.3f}", name.partition(" ")[2], *shown)
