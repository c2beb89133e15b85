"""Folders of Hugging Face as networks: the model of ``config.json``, and a text as its inputs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mponet.errors import BackendError, CheckpointError
from mponet.files import read_json


def open_pretrained(folder: Path) -> nn.Module:
    """The model of a folder, in float32 and ready for inference.

    Its class is the one that ``config.json`` names, so that its modules have the names of the file.
    No code of the folder is run.

    Raises:
        BackendError: `transformers` is not installed.
        CheckpointError: the folder holds no model of a class of `transformers`.
    """
    transformers = _transformers()
    names = read_json(folder / "config.json", dict).get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    kind = getattr(transformers, name, None) if isinstance(name, str) else None
    if not hasattr(kind, "from_pretrained"):
        raise CheckpointError(
            f"{folder / 'config.json'} names the architectures {json.dumps(names)[:80]}; expected a class of "
            "transformers; use --model MODULE:FUNCTION"
        )
    try:
        return kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()  # type: ignore[no-any-return, union-attr]
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = str(error).strip().split("\n")[0][:200]
        raise CheckpointError(f"{folder} cannot be loaded as a {name} ({reason}); expected a whole folder") from error


def text_batches(folder: Path, text: str, window: int, count: int) -> Sequence[dict[str, Any]]:
    """A text as inputs of a model: windows of tokens, one in each batch.

    Args:
        folder: holds the tokenizer.
        text: any text.
        window: tokens in a batch.
        count: number of tokens in all, at most.

    Raises:
        BackendError: `transformers` is not installed.
        CheckpointError: the folder holds no tokenizer, or the text has no tokens.
    """
    try:
        tokenizer = _transformers().AutoTokenizer.from_pretrained(folder, local_files_only=True)
        tokens = torch.tensor(tokenizer(text, verbose=False)["input_ids"][:count])
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().split("\n")[0][:200]
        raise CheckpointError(f"{folder} has no tokenizer that can be used ({reason}); expected its files") from error
    if not len(tokens):
        raise CheckpointError("the text has no tokens; expected some; take another file")
    return [{"input_ids": part[None]} for part in tokens.split(window)]


def _transformers() -> Any:
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise BackendError(
            "a folder of Hugging Face needs transformers, not installed here; pip install transformers"
        ) from error
    return transformers
