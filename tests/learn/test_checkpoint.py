import enum
import errno
import hashlib
import io
import os
import pickle
from collections import namedtuple

import numpy as np
import pytest
import torch

from particle_grid.learn import checkpoint


def state():
    return {
        "steps": 3,
        "policy": {"weight": torch.randn(4, 3)},
        "env": {
            "grid": np.arange(12, dtype=np.uint8).reshape(3, 4),
            "rng": np.array([2**64 - 1], np.uint64),
            "n": np.array(5),
        },
        "state": (torch.zeros(2), torch.ones(2)),
        "config": {"task": {"name": "group"}, "rate": 1e-3, "gif": None, "list": [1, 2], "flag": True},
        "score": np.float32(0.5),
    }


def test_a_loaded_state_is_the_saved_one(tmp_path):
    saved = state()
    checkpoint.save(tmp_path / "c.pt", saved)
    loaded = checkpoint.load(tmp_path / "c.pt")
    assert loaded["config"] == saved["config"]
    assert (loaded["steps"], loaded["score"]) == (3, 0.5)
    assert torch.equal(loaded["policy"]["weight"], saved["policy"]["weight"])
    assert torch.equal(loaded["state"][1], torch.ones(2))
    for name, array in saved["env"].items():
        again = np.asarray(loaded["env"][name])
        assert again.dtype == array.dtype
        assert again.shape == array.shape
        assert (again == array).all()
    assert os.listdir(tmp_path) == ["c.pt"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_checkpoint_and_no_other_file(call, tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    checkpoint.save(path, {"steps": 1})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(OSError, match=r"c\.pt could not be written \(No space left on device\).*untouched"):
            checkpoint.save(path, {"steps": 2})
    assert checkpoint.load(path)["steps"] == 1
    assert os.listdir(tmp_path) == ["c.pt"]


def test_a_missing_folder_is_reported_in_a_sentence(tmp_path):
    with pytest.raises(OSError, match="could not be written"):
        checkpoint.save(tmp_path / "no" / "c.pt", {"steps": 1})


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"There is no checkpoint .*c.pt"):
        checkpoint.load(tmp_path / "c.pt")


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_truncated_file_is_refused(keep, tmp_path):
    path = tmp_path / "c.pt"
    checkpoint.save(path, state())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="is not a checkpoint or is damaged"):
        checkpoint.load(path)


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_crafted_file_is_refused_and_runs_nothing(tmp_path):
    """This holds even if the digest is right, which the author of a crafted file can compute too."""
    trap = tmp_path / "trap"
    buffer = io.BytesIO()
    torch.save({"version": checkpoint.VERSION, "policy": Payload(trap)}, buffer)
    for name, content in (("zip.pt", buffer.getvalue()), ("raw.pt", pickle.dumps(Payload(trap)))):
        digest = hashlib.sha256(content).digest()
        (tmp_path / name).write_bytes(content)
        (tmp_path / f"digest-{name}").write_bytes(content + checkpoint.MARK + digest)
    for name in ("zip.pt", "raw.pt", "digest-zip.pt", "digest-raw.pt"):
        with pytest.raises(ValueError, match="is not a checkpoint or is damaged"):
            checkpoint.load(tmp_path / name)
    assert not trap.exists()


@pytest.mark.parametrize("content", [b"hello", b"\x80\x04N.", b"PK\x03\x04", bytes(1000)])
def test_a_foreign_file_is_refused(content, tmp_path):
    (tmp_path / "c.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"c\.pt"):
        checkpoint.load(tmp_path / "c.pt")


@pytest.mark.parametrize("foreign", [{"weights": torch.zeros(2)}, [1, 2]])
def test_a_file_of_another_program_is_refused(foreign, tmp_path):
    torch.save(foreign, tmp_path / "c.pt")
    with pytest.raises(ValueError, match=r"c.pt is not a checkpoint or is damaged"):
        checkpoint.load(tmp_path / "c.pt")
    content = (tmp_path / "c.pt").read_bytes()
    (tmp_path / "c.pt").write_bytes(content + checkpoint.MARK + hashlib.sha256(content).digest())
    with pytest.raises(ValueError, match="was not saved by particle_grid"):
        checkpoint.load(tmp_path / "c.pt")


@pytest.mark.parametrize("version", [1, 2])
def test_versions_one_and_two_are_loaded_and_told_apart(version, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "VERSION", version)
    checkpoint.save(tmp_path / "c.pt", state())
    assert checkpoint.load(tmp_path / "c.pt")["version"] == version


def test_another_version_is_refused_by_number(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "VERSION", 99)
        checkpoint.save(tmp_path / "c.pt", state())
    with pytest.raises(ValueError, match="has checkpoint version 99, and this program reads versions 1 to 3"):
        checkpoint.load(tmp_path / "c.pt")


def test_a_value_that_could_not_be_loaded_is_not_saved(tmp_path):
    with pytest.raises(TypeError, match=r"checkpoint.config.path holds a PosixPath"):
        checkpoint.save(tmp_path / "c.pt", {"config": {"path": tmp_path}})
    for value in ({1.5: 2}, {(1, 2): 3}, torch.zeros(2, dtype=torch.complex64), torch.eye(2).to_sparse(), b"bytes"):
        with pytest.raises(TypeError, match=r"checkpoint.value holds a \w+ that cannot be saved"):
            checkpoint.save(tmp_path / "c.pt", {"value": value})
    assert os.listdir(tmp_path) == []


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    __slots__ = ()


class Share(float):
    __slots__ = ()


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


def ring():
    circle = []
    circle.append(circle)
    return circle


@pytest.mark.parametrize(
    "value",
    [
        Colour.RED,
        Text("a"),
        Share(1.0),
        {Text("a"): 1},
        np.zeros(2, complex),
        np.zeros(2, np.longdouble),
        np.zeros(2, "M8[s]"),
        np.array([None]),
        np.array(["a"]),
        np.datetime64("2020-01-01"),
        np.longdouble(1),
        np.complex64(1),
        torch.empty(2, device="meta"),
        torch.zeros((1,) * 33),
        "\ud800",
        nested(40),
        nested(3000),
        ring(),
        "x" * 10_000_000,
        list(range(2_000_000)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_cannot_be_saved_is_refused_and_the_old_file_stays(value, tmp_path):
    checkpoint.save(tmp_path / "c.pt", {"steps": 1})
    with pytest.raises(TypeError, match=r"cannot be saved: use tensors|could not be loaded again \(.*: save less"):
        checkpoint.save(tmp_path / "c.pt", {"value": value})
    assert checkpoint.load(tmp_path / "c.pt")["steps"] == 1


Point = namedtuple("Point", "row column")


@pytest.mark.parametrize(
    ("value", "loaded"),
    [
        (Point(1, 2), (1, 2)),
        (torch.Size([1, 2]), (1, 2)),
        (np.float64(0.5), 0.5),
        (np.str_("a"), "a"),
        (np.arange(3, dtype=">i4"), [0, 1, 2]),
        (np.arange(3, dtype=">f8")[::-1], [2.0, 1.0, 0.0]),
        (torch._neg_view(torch.arange(3.0)), [0.0, -1.0, -2.0]),
        (torch.arange(5).unfold(0, 3, 1), [[0, 1, 2], [1, 2, 3], [2, 3, 4]]),
        (torch.arange(3).as_strided((2, 2), (1, 1)), [[0, 1], [1, 2]]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_of_a_related_type_is_saved_as_its_plain_content(value, loaded, tmp_path):
    checkpoint.save(tmp_path / "c.pt", {"value": value, "version": 99})
    got = checkpoint.load(tmp_path / "c.pt")["value"]
    assert (got.tolist() if isinstance(got, torch.Tensor) else got) == loaded


@pytest.mark.parametrize("state", [None, [1], 5])
def test_a_state_that_is_not_a_dict_is_refused(state, tmp_path):
    with pytest.raises(TypeError, match=r"The state is a \w+: give a dict"):
        checkpoint.save(tmp_path / "c.pt", state)


DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")


@pytest.mark.parametrize("dtype", [*DTYPES, "uint16", "uint32", "uint64"])
@pytest.mark.parametrize("shape", [(), (0,), (3, 4), (2, 3, 5)])
def test_a_tensor_of_any_dtype_and_layout_is_loaded_as_it_was(dtype, shape, tmp_path):
    x = (torch.rand(shape) * 2).to(getattr(torch, dtype))
    forms = {"whole": x, "turned": x.T if x.ndim == 2 else x, "part": x[1:] if x.ndim > 1 else x, "same": x}
    forms |= {"one for many": torch.ones(1).expand(50, 4), "weight": torch.nn.Parameter(torch.ones(2))}
    checkpoint.save(tmp_path / "c.pt", {"tensors": [forms]})
    [loaded] = checkpoint.load(tmp_path / "c.pt")["tensors"]
    for name, saved in forms.items():
        assert (loaded[name].dtype, loaded[name].shape) == (saved.dtype, saved.shape)
        assert loaded[name].tolist() == saved.tolist()
