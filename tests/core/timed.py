"""Figures as `mponet bench` has them, made up."""


def timed(median, minimum=None):
    return {"median": median, "minimum": median if minimum is None else minimum, "spread": 0.1, "samples": 30}


def measured(name="small", target=1.0, **seconds):
    """A row as JSON has it: medians by implementation, forward and step alike."""
    kinds = {"dense": "dense", "ours": "ours", "low": "other"}
    entries = [
        {"name": key, "kind": kinds.get(key, "peer"), "versions": {}}
        | ({"cannot": value} if isinstance(value, str) else {"forward": timed(value), "step": timed(2 * value)})
        for key, value in seconds.items()
    ]
    return {
        "backend": "torch",
        "row": name,
        "batch": 5,
        "targets": {"forward": target, "step": target},
        "contenders": entries,
        "plans": {"forward": "a", "training": "b", "multiplications": 10**6},
        "versions": {"toy": "1"},
        "notation": "M",
        "device": "cpu",
        "threads": 2,
    }
