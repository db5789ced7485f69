import pytest
import torch

from particle_grid.learn.distributed import choose_device, gpu_for
from particle_grid.support.errors import UserError


def test_a_missing_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(ValueError, match="device=cuda is not available, because torch finds no GPU"):
        choose_device("cuda")


def test_a_gpu_beyond_the_last_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match=r"device=cuda:2 is not available: torch finds 2 GPU\(s\)"):
        choose_device("cuda:2")


@pytest.mark.parametrize("name", ["tpu", None, "", "auto:1", "cpu:first", "cuda:first", "cudax"])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(UserError, match=f"device={name} is not known: choose auto, cpu, cuda"):
        choose_device(name)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("0,1", ["0", "1", "0"]),
        (" 4 ,7, ", ["4", "7", "4"]),
        ("GPU-8932f937,MIG-1", ["GPU-8932f937", "MIG-1", "GPU-8932f937"]),
        ("2,-1,3", ["2", "2", "2"]),  # CUDA hides what follows a -1
        ("-1", [None, None, None]),
        ("", [None, None, None]),
        (None, ["0", "1", "2"]),  # those that torch finds
    ],
)
def test_processes_side_by_side_take_turns_with_the_gpus(monkeypatch, visible, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu_for(number).get("CUDA_VISIBLE_DEVICES") for number in range(3)] == expected
