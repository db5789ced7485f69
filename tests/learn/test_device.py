import pytest
import torch

from particle_grid.learn.distributed import choose_device


def test_a_missing_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(ValueError, match="device=cuda is not available, because torch finds no GPU"):
        choose_device("cuda")


@pytest.mark.parametrize("name", ["tpu", None, ""])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(ValueError, match=f"device={name} is not known: choose auto, cpu or cuda"):
        choose_device(name)
