"""What is matched, why the rest is not, and errors that help."""

import numpy as np
import pytest

from core.compress.planted import linear
from mponet.compress import CompressConfig, Override
from mponet.compress.select import select
from mponet.errors import CompressionError

MATRIX = np.zeros((96, 96))
TARGETS = [
    linear("layers.0.q_proj", MATRIX),
    linear("layers.0.down_proj", MATRIX),
    linear("layers.1.q_proj", MATRIX),
    linear("layers.1.norm", np.zeros((96, 1)), type_name="Norm"),
    linear("embed", MATRIX, kind="embedding", type_name="Embedding"),
    linear("head", MATRIX, tied_to="embed"),
    linear("group", MATRIX, kind="convolution", type_name="Conv2d", unsupported="groups are not supported"),
]


def reasons(**options):
    return {entry.target.name: entry.reason for entry in select(TARGETS, CompressConfig(keep=0.5, **options))}


def matched(**options):
    return [name for name, reason in reasons(**options).items() if not reason]


def test_everything_that_can_be_replaced_is_matched_by_default():
    assert matched() == ["layers.0.q_proj", "layers.0.down_proj", "layers.1.q_proj", "embed", "head"]
    assert "min_weights 4096" in reasons()["layers.1.norm"]
    assert reasons()["group"] == "groups are not supported"


@pytest.mark.parametrize(
    "include",
    [r"layers\.\d+\.q_proj", ["q_proj"], ["layers.0.q_proj", "layers.1.q_proj"], lambda target: "q_" in target.name],
)
def test_patterns(include):
    assert matched(include=include) == ["layers.0.q_proj", "layers.1.q_proj"]
    assert reasons(include=include)["embed"] == "not in include"
    assert reasons(exclude=include)["layers.1.q_proj"] == "in exclude"
    assert "layers.0.down_proj" in matched(exclude=include)


def test_a_string_matches_whole_names_only():
    with pytest.raises(CompressionError, match=r"include 'q_proj' matches no module"):
        matched(include="q_proj")


@pytest.mark.parametrize("role", ["include", "exclude"])
def test_an_entry_that_matches_nothing_shows_close_names_and_types(role):
    with pytest.raises(CompressionError) as raised:
        matched(**{role: ["q_proj", "donw_proj"]})
    text = str(raised.value)
    assert f"{role} 'donw_proj' matches no module" in text
    assert "layers.0.down_proj" in text
    assert "4 Linear" in text
    assert "1 Embedding" in text
    assert "'q_proj'" not in text


def test_overrides_that_match_nothing_are_errors_and_the_first_match_counts():
    with pytest.raises(CompressionError, match=r"the override 'lyers.*' matches no module"):
        matched(overrides={"lyers.*": Override(keep=0.5)})
    overrides = {r".*q_proj": Override(keep=0.25), r"layers\.0.*": Override(keep=0.75)}
    entries = select(TARGETS, CompressConfig(keep=0.5, overrides=overrides))
    assert [entry.override.keep for entry in entries][:3] == [0.25, 0.75, 0.25]


def test_a_tied_pair_is_replaced_in_both_modules_or_in_none():
    assert reasons(exclude=["embed"])["head"] == "shares its weight with embed (in exclude)"
    assert reasons(exclude=["head"])["embed"] == "shares its weight with head (in exclude)"
    assert reasons(tied="skip")["embed"] == reasons(tied="skip")["head"] == "its weight is tied"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "budgets given: none"),
        ({"keep": 0.5, "error": 0.1}, "budgets given: keep, error"),
        ({"keep": 0.0}, "keep is 0.0"),
        ({"keep": 50}, "keep is 50"),
        ({"keep": True}, "keep is True"),
        ({"error": -0.1}, "error is -0.1"),
        ({"bytes": 0.5}, "bytes is 0.5"),
        ({"keep": 0.5, "of": "module"}, "of is"),
        ({"keep": 0.5, "kinds": ("dense",)}, "expected some of linear, convolution, embedding"),
        ({"keep": 0.5, "structures": ()}, "structures is ()"),
        ({"keep": 0.5, "structures": "mpo"}, "structures is 'mpo'"),
        ({"keep": 0.5, "allocation": "best"}, "allocation is"),
        ({"keep": 0.5, "floor": 0.5, "ceiling": 0.25}, "expected floor <= ceiling"),
        ({"keep": 0.5, "include": "("}, "not a regular expression"),
        ({"keep": 0.5, "include": 3}, "include is 3"),
        ({"keep": 0.5, "overrides": {"x": 0.5}}, "expected an Override"),
    ],
)
def test_configs_that_make_no_sense(options, text):
    with pytest.raises(CompressionError) as raised:
        CompressConfig(**options)
    assert text in str(raised.value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"input_dims": (2, 3)}, "only one of input_dims and output_dims"),
        ({"bond": 3}, "bond is given without factors"),
        ({"bond": 3, "keep": 0.5, "input_dims": (2, 3), "output_dims": (2, 3)}, "bond is given with keep or error"),
        ({"structures": ("tucker",)}, "structures is"),
    ],
)
def test_overrides_that_make_no_sense(options, text):
    with pytest.raises(CompressionError) as raised:
        Override(**options)
    assert text in str(raised.value)
