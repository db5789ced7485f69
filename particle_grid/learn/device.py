"""The device that a policy runs on."""

import torch


def choose_device(name: str) -> torch.device:
    """auto: a GPU if there is one. Raises ValueError for cuda where there is none, and for anything else but cpu."""
    if not isinstance(name, str) or name.partition(":")[0] not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device={name} is not known: choose auto, cpu or cuda.")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"trainer.device={name} cannot be: torch finds no GPU here; use cpu or auto.")
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
