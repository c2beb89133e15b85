"""Machine constants: stored under a fingerprint, used on that machine only, optional."""

import json
from dataclasses import asdict, replace

import pytest

import mponet.contraction.machine
from mponet.contraction.machine import DEFAULT_COSTS, DEFAULTS, Machine, fingerprint, machine_of, path, save
from mponet.contraction.planner import PlanningContext, _plans_for, plans_for
from mponet.errors import CheckpointError
from mponet.operators.shape import MPOShape

VERSIONS = {"made-up": "1.0"}
MEASURED = Machine(
    flops=3.25e11,
    half_speed_size=7.0,
    cache_bandwidth=1e11,
    llc_bandwidth=5e10,
    memory_bandwidth=1e10,
    call_overhead=1.5e-6,
    bmm_overhead=2e-8,
)


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """A cache of its own for each test, in a folder that is not there yet."""
    monkeypatch.setenv("MPONET_CACHE", str(tmp_path / "some" / "cache_bytes"))
    return tmp_path / "some" / "cache_bytes"


# ---------------------------------------------------------------- keeping


def test_measured_constants_come_back(folder):
    assert machine_of("made-up", VERSIONS) == DEFAULT_COSTS
    file = save("made-up", VERSIONS, MEASURED)
    assert file == path("made-up") == folder / "machine-made-up.json"
    assert machine_of("made-up", VERSIONS) == MEASURED
    assert json.loads(file.read_text()) == {"fingerprint": fingerprint(VERSIONS), "machine": asdict(MEASURED)}


def test_the_file_is_there_whole_or_not_at_all(folder, monkeypatch):
    save("made-up", VERSIONS, MEASURED)

    def broken(*_):
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr("mponet.files.writer.os.fsync", broken)
        with pytest.raises(CheckpointError, match="no space left"):
            save("made-up", VERSIONS, replace(MEASURED, call_overhead=1.0))
    assert [file.name for file in folder.iterdir()] == ["machine-made-up.json"]
    mponet.contraction.machine._measured.cache_clear()
    assert machine_of("made-up", VERSIONS) == MEASURED


def test_frameworks_have_files_of_their_own():
    assert save("torch", VERSIONS, MEASURED) != path("jax")
    assert machine_of("jax", VERSIONS) == DEFAULTS["jax"]
    assert machine_of("torch", VERSIONS) == MEASURED


def test_the_newest_constants_serve():
    save("made-up", VERSIONS, MEASURED)
    machine_of("made-up", VERSIONS)
    save("made-up", VERSIONS, replace(MEASURED, call_overhead=1.0))
    assert machine_of("made-up", VERSIONS).call_overhead == 1.0


def test_a_cache_that_is_a_file_is_refused_for_writing_only(folder):
    folder.parent.mkdir()
    folder.write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save("made-up", VERSIONS, MEASURED)
    assert machine_of("made-up", VERSIONS) == DEFAULT_COSTS


def test_without_a_folder_of_its_own_it_lies_in_that_of_the_user(monkeypatch, tmp_path):
    monkeypatch.delenv("MPONET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert path("jax") == tmp_path / "mponet" / "machine-jax.json"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert path("jax") == tmp_path / "home" / ".cache" / "mponet" / "machine-jax.json"
    monkeypatch.setenv("MPONET_CACHE", "~/here")
    assert path("jax") == tmp_path / "home" / "here" / "machine-jax.json"


# ---------------------------------------------------------------- whose they are


@pytest.mark.parametrize("versions", [{"made-up": "1.1"}, {"made-up": "1.0", "other": "2"}, {}])
@pytest.mark.parametrize("backend", ["torch", "jax", "tensorflow", "numpy"])
def test_another_version_takes_the_defaults(backend, versions):
    save(backend, VERSIONS, MEASURED)
    assert machine_of(backend, versions) == DEFAULTS.get(backend, DEFAULT_COSTS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mponet.contraction.machine._processor", lambda: "another processor"),
        ("mponet.contraction.machine.os.sched_getaffinity", lambda _: set(range(1000))),
        ("mponet.contraction.machine.platform.system", lambda: "another system"),
    ],
)
def test_another_machine_takes_the_defaults(monkeypatch, name, value):
    save("jax", VERSIONS, MEASURED)
    with monkeypatch.context() as patched:
        patched.setattr(name, value, raising=False)
        assert machine_of("jax", VERSIONS) == DEFAULTS["jax"]
    usual = DEFAULTS["jax"]
    unmeasured = {name: getattr(usual, name) for name in ("transpose_bandwidth", "saved_moves")}
    assert machine_of("jax", VERSIONS) == replace(MEASURED, **unmeasured)


def test_a_fingerprint_names_what_constants_depend_on():
    found = fingerprint(VERSIONS)
    assert found["versions"] == VERSIONS
    assert found["cores"] >= 1
    assert {"processor", "system"} < set(found)
    assert found == fingerprint(dict(VERSIONS)) == json.loads(json.dumps(found))


def test_layers_make_use_of_them():
    """Where each operation takes a second, the plan with the fewest wins."""
    planner, shape = PlanningContext("made-up", lambda: VERSIONS, None), MPOShape.from_factors((16, 16), (16, 16), 2)
    _plans_for.cache_clear()
    usual = plans_for(shape, 4, "float32", planner)
    save("made-up", VERSIONS, replace(MEASURED, call_overhead=1.0))
    _plans_for.cache_clear()
    measured = plans_for(shape, 4, "float32", planner)
    _plans_for.cache_clear()
    assert (usual.request.machine, measured.request.machine.call_overhead) == (DEFAULT_COSTS, 1.0)
    assert measured.forward.groups == (2,)


# ---------------------------------------------------------------- what is broken


def content(**changes):
    return json.dumps({"fingerprint": fingerprint(VERSIONS), "machine": asdict(MEASURED) | changes}).encode()


@pytest.mark.parametrize(
    "bytes_",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b"{}",
        b'{"machine": {}}',
        b'{"machine": [1, 2]}',
        json.dumps({"machine": asdict(MEASURED)}).encode(),
        content(flops=0),
        content(flops=-1.0),
        content(call_overhead=float("nan")),
        content(call_overhead=float("inf")),
        content(cache_bandwidth="fast"),
        content(memory_bandwidth=None),
        content(half_speed_size=True),
        content(call_overhead=1e-320),
        content(flops=10**400),
        b"[" * 100_000,
    ],
)
def test_a_broken_file_is_said_once_and_forbids_nothing(folder, caplog, bytes_):
    folder.mkdir(parents=True)
    file = path("made-up")
    file.write_bytes(bytes_)
    for _ in range(2):
        assert machine_of("made-up", VERSIONS) == DEFAULT_COSTS
    (message,) = caplog.messages
    assert "\n" not in message
    for part in (str(file), "built-in", "mponet tune", "remove"):
        assert part in message


def test_a_folder_in_its_place_is_said(folder, caplog):
    path("made-up").mkdir(parents=True)
    assert machine_of("made-up", VERSIONS) == DEFAULT_COSTS
    assert "not a regular file" in caplog.text


@pytest.mark.parametrize("home", ["/dev/null", "~no-such-user", "/proc/1/root/none", "x" * 5000])
def test_a_home_that_is_none_forbids_nothing(monkeypatch, home):
    monkeypatch.delenv("MPONET_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", home)
    assert machine_of("made-up", VERSIONS) == DEFAULT_COSTS
