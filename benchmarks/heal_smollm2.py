"""SmolLM2-135M compressed, and healed by distillation for a stated time.

The data are those of ``compress_smollm2.py``: the network is compressed with the first tokens of
every other topic of ``pydoc_data.topics`` and healed on all tokens of these topics; the other
topics and the GNU GPL are held out.  ``--samples`` adds text that the dense network writes itself.
Products are computed in bfloat16, parameters stay in float32.  Killed and started again, the run
goes on.  Run from the root of the repository::

    python benchmarks/heal_smollm2.py /tmp/healing --keep 0.8 --steps 300
"""

import argparse
import json
import sys
from copy import deepcopy
from pathlib import Path
from time import perf_counter, process_time

import torch
from compress_smollm2 import load, perplexity, texts

from mponet.compress import Calibration, CompressConfig, HealConfig
from mponet_torch import calibrate, compress, heal, load_compressed, save_compressed

CALIBRATION_WINDOW = 512
ROWS, WINDOW = 2, 256  # of a batch
NEW_TOKENS = 40
PROMPTS = ("Python is a programming language that", "A list comprehension", "The Free Software Foundation")
#: Every field of `HealConfig` that differs from its default.
RECIPE = {"learning_rate": 6e-5, "warm_up": 0.1, "rates": {".*embed_tokens.*": 0.0}, "log_every": 5}


def compressed(options, model, tokens):
    """The compressed network of a folder, made there if there is none."""
    folder = options.folder / f"compressed-{options.keep}"
    if not folder.exists():
        batches = [{"input_ids": window[None], "use_cache": False} for window in tokens.split(CALIBRATION_WINDOW)]
        config = CompressConfig(keep=options.keep, structures=("low-rank",), tied="skip")
        if options.sums and options.sums.exists():
            sums = Calibration.load(options.sums)
        else:
            sums = calibrate(model, config, batches)
        small, report = compress(model, config, sums)
        save_compressed(small, report.plan, folder)
    return load_compressed(deepcopy(model), folder)


def batches_of(tokens):
    """Batches of windows; what does not fill one is left out."""
    usable = tokens[: len(tokens) // (ROWS * WINDOW) * ROWS * WINDOW]
    return [{"input_ids": batch, "use_cache": False} for batch in usable.view(-1, ROWS, WINDOW)]


def topics(tokenizer):
    """All tokens of every other topic."""
    from pydoc_data.topics import topics as entries

    text = "\n".join(entries[name] for name in sorted(entries)[0::2])
    return torch.tensor(tokenizer(text)["input_ids"])


def sampled(options, model, tokenizer):
    """Text that the dense network writes, token by token; kept in the folder."""
    path = options.folder / f"samples-{options.samples}.json"
    if not path.exists():
        torch.manual_seed(0)
        rows = -(-options.samples // WINDOW)
        start = torch.full((rows, 1), tokenizer.bos_token_id)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            drawn = model.generate(
                start, attention_mask=torch.ones_like(start), do_sample=True, top_k=0, min_new_tokens=WINDOW,
                max_new_tokens=WINDOW,
            )  # fmt: skip
        path.write_text(json.dumps(drawn[:, 1:].flatten().tolist()))
    return torch.tensor(json.loads(path.read_text()))


def texts_of(model, tokenizer):
    """What a network writes after each prompt, always its likeliest token."""
    written = []
    for prompt in PROMPTS:
        batch = tokenizer(prompt, return_tensors="pt")
        with torch.inference_mode():
            tokens = model.generate(**batch, do_sample=False, max_new_tokens=NEW_TOKENS)
        written.append(tokenizer.decode(tokens[0, batch["input_ids"].shape[1] :]))
    return written


def measured(name, model, tokenizer, held_out):
    """Perplexities and text of a network, printed."""
    model.eval()
    values = {domain: round(perplexity(model, tokens), 2) for domain, tokens in held_out.items()}
    written = texts_of(model, tokenizer)
    print(f"{name}: {values}", *(f"  {p} |{text!r}" for p, text in zip(PROMPTS, written, strict=True)), sep="\n")
    return {"perplexity": values, "text": written}


def main():
    """Print perplexities and text, dense, compressed and healed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of compressed networks and checkpoints")
    parser.add_argument("--keep", type=float, default=0.8)
    parser.add_argument("--steps", type=int, default=300, help="of one batch each")
    parser.add_argument("--seconds", type=float, help="length of healing as a time, instead of steps")
    parser.add_argument("--samples", type=int, default=0, help="tokens of the dense network's own text")
    parser.add_argument("--sums", type=Path, help="file of a calibration, if there is one")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=JSON", help="other fields of HealConfig")
    parser.add_argument("--evaluate", type=int, default=50, help="steps between perplexities during healing")
    parser.add_argument("--json", type=Path, help="file of results; rows of other budgets in it are kept")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    model, tokenizer = load()
    calibration_tokens, held_out = texts(tokenizer)
    tokens = topics(tokenizer)
    print(f"{len(tokens)} tokens of topics, {options.samples} of the network's own text", flush=True)
    if options.samples:
        tokens = torch.cat([tokens, sampled(options, model, tokenizer)])
    student = compressed(options, model, calibration_tokens)
    row = {"dense": measured("dense", model, tokenizer, held_out)}
    row["one shot"] = measured("one shot", student, tokenizer, held_out)
    changed = {name: json.loads(value) for name, value in (entry.split("=", 1) for entry in options.set)}
    length = {"steps": options.steps} if options.seconds is None else {"seconds": options.seconds}
    config = HealConfig(**{**length, **RECIPE, **changed})
    curve = []

    def show(record):
        line = f"step {record.step} loss {record.loss:.4f} rate {record.learning_rate:.2e} {record.seconds:.0f} s"
        if options.evaluate and record.step % options.evaluate == 0:
            student.eval()
            values = {domain: round(perplexity(student, text), 2) for domain, text in held_out.items()}
            curve.append({"step": record.step, "seconds": round(record.seconds), **values})
            line += f" {values}"
        print(line, file=sys.stderr, flush=True)

    began, processor = perf_counter(), process_time()
    teacher = deepcopy(model).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        report = heal(
            student,
            teacher,
            batches_of(tokens),
            config,
            folder=options.folder / f"healing-{options.keep}",
            every=240,
            reporter=show,
        )
    print(f"{report}\n{perf_counter() - began:.0f} s, {process_time() - processor:.0f} s of processor")
    row["healed"] = measured("healed", student, tokenizer, held_out)
    row["healing"] = {
        "seconds": round(report.seconds),
        "processor seconds of the last process": round(process_time() - processor),
        "steps": report.steps,
        "tokens": report.steps * ROWS * WINDOW,
        "tokens of topics": len(tokens) - options.samples,
        "tokens of samples": options.samples,
        "loss": [report.before, report.after],
        "weights that moved": report.trained,
        "config": config.as_dict(),
        "curve": curve,
    }
    if options.json:
        rows = json.loads(options.json.read_text()) if options.json.exists() else {}
        rows[str(options.keep)] = row
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
