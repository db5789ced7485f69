"""The device that a policy runs on."""

import torch

from particle_grid.support.errors import UserError


def choose_device(name: str) -> torch.device:
    """Return a device by name.

    Args:
        name: `cpu`, `cuda`, `cuda:1`, or `auto` for a GPU if there is one and the CPU otherwise.

    Raises:
        UserError: for any other name, and for `cuda` if torch finds no GPU.
    """
    if not isinstance(name, str) or name.partition(":")[0] not in ("auto", "cpu", "cuda"):
        raise UserError(f"device={name} is not known: choose auto, cpu or cuda.")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device={name} is not available, because torch finds no GPU: use cpu or auto.")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)
