"""The first lines of docs/compression.md, computed from the files in docs/measured."""

from collections.abc import Callable
from typing import Any

Figures = dict[str, Any]


def from_scratch(found: Figures) -> str:
    """Low rank against MPO, both trained from scratch."""
    gains = {row["bond"]: 100 * (row["mpo"]["last"]["mean"] - row["low_rank"]["last"]["mean"]) for row in found["rows"]}
    shares = {row["bond"]: 100 * row["rho"] for row in found["rows"]}
    few, many = 4, 16
    return (
        f"Trained from scratch with few weights, genuine MPOs beat low rank: on FC2 by {gains[few]:.0f} points at "
        f"{shares[few]:.1f} % of the weights, by {gains[many]:.0f} points at {shares[many]:.0f} %."
    )


def other_way_round(found: Figures) -> str:
    """The paper's operators compressed from trained networks."""
    rows = found["cells"]
    mpo, low, dense = rows["fc2 4 mpo"], rows["fc2 4 low-rank"], rows["fc2 dense"]["accuracy"]
    return (
        f"Compressed from a trained FC2 to {100 * mpo['rho']:.1f} % and healed, the MPO comes within "
        f"{100 * (dense - mpo['healed']):.1f} points of the dense network; low rank reaches "
        f"{100 * low['healed']:.0f} %."
    )


def balanced(found: Figures) -> str:
    """Balanced operators on a language model."""
    rows = found["cells"].values()
    nearer = sum(row["whitened_svd"] < row["least_squares"] for row in rows)
    return (
        f"On a language model, at a quarter of the weights and without healing, low rank is nearer in {nearer} of "
        f"{len(rows)} layers. It is an MPO with factors of one, so `compress` offers both and takes what is nearest; "
        "with `heal=True` it offers balanced operators where low rank would keep fewer than 16 ranks, "
        "and splits at the window for convolutions."
    )


def sentence_encoder(found: Figures) -> str:
    """Plain and whitened SVD on MiniLM."""
    rows = found["cells"]
    lost = {
        way: [rows["dense"][key] - rows[f"{way} SVD 0.5"]["one_shot"][key] for key in ("lee", "wordsim")]
        for way in ("truncated", "whitened")
    }
    ratios = sorted(plain / fitted for plain, fitted in zip(lost["truncated"], lost["whitened"], strict=True))
    return (
        f"Fit operators to the layer's inputs: plain SVD of the weights loses {ratios[0]:.1f} to {ratios[1]:.1f} "
        "times as much of MiniLM's correlations as SVD in the covariance of the inputs. "
        f"{healed_encoder(rows)}"
    )


def healed_encoder(rows: Figures) -> str:
    """MiniLM after healing; nothing if it was not healed."""
    row, dense = rows.get("mponet 0.5", {}), rows["dense"]
    if "healed" not in row:
        return ""
    healed = row["healed"]
    return (
        f"At half of the weights, healed for {row['heal_seconds'] / 60:.0f} minutes, its correlations with people are "
        f"{healed['lee']:.3f} and {healed['wordsim']:.3f}; those of the dense network are {dense['lee']:.3f} and "
        f"{dense['wordsim']:.3f}."
    )


def language_model(found: Figures) -> str:
    """SmolLM2 after healing."""
    told = []
    for keep, row in sorted(found.items(), reverse=True):
        ratios = {name: value / row["dense"]["perplexity"][name] for name, value in row["healed"]["perplexity"].items()}
        own, other = ratios.values()
        told.append(
            f"at {100 * float(keep):.0f} % of the weights {own:.2f} times the perplexity of the dense model in the "
            f"healed domain, and {other:.2f} times in another one"
        )
    minutes = max(round(row["healing"]["seconds"] / 60) for row in found.values())
    return f"SmolLM2-135M, healed for {minutes} minutes on two busy cores, has {'; '.join(told)}."


def crossings(found: Figures) -> str:
    """Where genuine MPOs pass low rank after healing."""
    rows, told, tried = found["cells"], [], set()
    for name in dict.fromkeys(cell.split(" ")[0] for cell in rows):
        keeps = sorted({cell.split(" ")[1] for cell in rows if cell.startswith(f"{name} 0")}, key=float)
        ahead = []
        for keep in keeps:
            low, *mpos = (rows.get(f"{name} {keep} {way}") for way in ("low-rank", "2 sites", "3 sites"))
            if low and all(mpos):
                tried.add(keep)
            if low and all(mpos) and max(m["steps"]["quality"] for m in mpos) > low["steps"]["quality"]:
                ahead.append(keep)
        told.append(f"{name} at {', '.join(ahead) or 'none'}")
    return (
        "Compressed and healed for equally many steps, operators of two or three sites are ahead of low rank at "
        "these shares of the weights: "
        f"{'; '.join(told)} (of {', '.join(sorted(tried))} that were tried). {_plans(rows)}"
    )


def _plans(rows: Figures) -> str:
    """How often what a plan chooses is nearest to the original after healing."""
    losses = {
        cell.removesuffix(" plan"): [
            rows[f"{cell.removesuffix(' plan')} {way}"]["steps"]["loss"]
            for way in ("plan", "low-rank", "2 sites", "3 sites")
        ]
        for cell in rows
        if cell.endswith(" plan")
    }
    least = sum(plan < min(others) for plan, *others in losses.values())
    return (
        f"What `compress` chooses with `heal=True` and a joint budget has the least loss after healing in {least} of "
        f"these {len(losses)} cases."
    )


def edge_maps(found: Figures) -> str:
    """The splits of a kernel."""
    rows = found["cells"]
    best, low, fitted = (rows[f"0.25 {way}"] for way in ("separable", "kernel", "separable, calibrated"))
    return (
        "The 3x3 convolutions of a VGG-16 are where MPOs win without healing: at a quarter of the weights the "
        f"separable split loses {100 * best['weights']:.0f} % of the kernels where low rank loses "
        f"{100 * low['weights']:.0f} %, and finds edges with F1 {best['edges']:.2f} against {low['edges']:.2f}. "
        f"Calibrated with two photographs, the same split has F1 {fitted['edges']:.3f} on their other halves, and "
        f"{fitted['other']:.3f} on another photograph."
    )


def speed(found: Figures) -> str:
    """Tokens per second."""
    rows = found["cells"]
    write, read = (rows[f"smollm2 0.5 {which} 1 compiled"]["frozen"]["speedup"] for which in ("decode", "prefill"))
    return (
        f"At half of the weights and frozen, SmolLM2 writes {write:.2f} times and reads {read:.2f} times as many "
        "tokens per second as the dense model, both compiled, at batch 1."
    )


def quantised(found: Figures) -> str:
    """Rounding before compressing."""
    dense, rounded = (found["cells"][name]["pydoc"] for name in ("dense 16", "dense 8"))
    return (
        f"If bytes are what you want, round first: 8 bits raise the perplexity of SmolLM2 by "
        f"{100 * (rounded / dense - 1):.1f} %, and are fewer bytes than keep 0.6 with 16 bits. Operators buy "
        "multiplications, which bits do not."
    )


#: What to say, by the file that shows it.
SUMMARY: dict[str, Callable[[Figures], str]] = {
    "low-rank": from_scratch,
    "compress-suite": other_way_round,
    "compress-balanced": balanced,
    "compress-minilm": sentence_encoder,
    "compress-structures": crossings,
    "compress-hed": edge_maps,
    "heal-smollm2": language_model,
    "compress-speed": speed,
    "compress-quantized": quantised,
}
