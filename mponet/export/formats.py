"""The formats that networks are exported to, and which framework writes which."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec

from mponet.errors import BackendError, InputError


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file.

    Attributes:
        title: what it is, for tables.
        suffix: end of the file's name; empty for a folder.
        needs: adapter that writes it to the import names of the packages that it takes.
        extra: pip extra that installs them; empty if the framework is enough.
        absent: adapter that does not write it to the reason.
    """

    title: str
    suffix: str
    needs: Mapping[str, tuple[str, ...]]
    extra: str = ""
    absent: Mapping[str, str] = field(default_factory=dict)


_OWN_TORCH = "a format of PyTorch"
_OWN_JAX = "a format of JAX"
_OWN_KERAS = "a format of TensorFlow and Keras"
#: The formats by the name that ``--to`` takes.
FORMATS: Mapping[str, Format] = {
    "torch-export": Format(
        "`torch.export` program, traced strictly",
        ".pt2",
        {"torch": ()},
        absent={"jax": _OWN_TORCH, "tensorflow": _OWN_TORCH},
    ),
    "aotinductor": Format(
        "AOTInductor package: machine code, loaded from Python or C++",
        ".pt2",
        {"torch": ()},
        absent={"jax": _OWN_TORCH, "tensorflow": _OWN_TORCH},
    ),
    "onnx": Format(
        "ONNX, run by onnxruntime",
        ".onnx",
        {"torch": ("onnx", "onnxscript", "onnxruntime"), "tensorflow": ("onnx", "tf2onnx", "onnxruntime")},
        "onnx",
        {
            "jax": "JAX has no ONNX exporter of its own, and jax2onnx 0.17 asks for an older orbax-checkpoint than "
            "flax 0.12 is used with"
        },
    ),
    "onnx-torchscript": Format(
        "ONNX by the exporter before `torch.export`, for tools that read its graphs only",
        ".onnx",
        {"torch": ("onnx", "onnxruntime")},
        "onnx",
        {"jax": "an exporter of PyTorch", "tensorflow": "an exporter of PyTorch"},
    ),
    "jax-export": Format(
        "`jax.export`: StableHLO, with a symbolic batch",
        ".jax",
        {"jax": ()},
        absent={"torch": _OWN_JAX, "tensorflow": _OWN_JAX},
    ),
    "saved-model": Format(
        "TensorFlow SavedModel, a folder",
        "",
        {"tensorflow": ()},
        absent={
            "torch": _OWN_KERAS,
            "jax": "`jax.experimental.jax2tf` writes one, with TensorFlow in the same process; no adapter imports two "
            "frameworks",
        },
    ),
    "litert": Format(
        "LiteRT (TensorFlow Lite)", ".tflite", {"tensorflow": ()}, absent={"torch": _OWN_KERAS, "jax": _OWN_KERAS}
    ),
    "keras": Format(
        "Keras file, loaded with `mponet_tensorflow` imported",
        ".keras",
        {"tensorflow": ()},
        absent={"torch": _OWN_KERAS, "jax": _OWN_KERAS},
    ),
}


def format_for(name: str, framework: str) -> Format:
    """The format of a name, if a framework writes it and its packages are installed.

    Args:
        name: one of `FORMATS`.
        framework: ``torch``, ``jax`` or ``tensorflow``.

    Raises:
        InputError: there is no such format, or the framework does not write it.
        BackendError: a package is missing.

    Example:
        >>> format_for("jax-export", "jax").suffix
        '.jax'
    """
    own = [known for known, kind in FORMATS.items() if framework in kind.needs]
    if name not in FORMATS:
        raise InputError(f"the format is {name!r}; expected one of {', '.join(own)}")
    kind = FORMATS[name]
    if framework not in kind.needs:
        raise InputError(
            f"{framework} does not write {name} ({kind.absent[framework]}); expected one of {', '.join(own)}"
        )
    if missing := [package for package in kind.needs[framework] if find_spec(package) is None]:
        raise BackendError(f"{name} needs {', '.join(missing)}, not installed here; pip install 'mponet[{kind.extra}]'")
    return kind
