"""Check what a checkpoint says about a network before compiled code, which trusts shapes, gets it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

# What a trainer saves. The other processes of a group add what they have for themselves.
KINDS: dict[str, Any] = {"steps": int, "policy": Mapping, "optimiser": Mapping}
OWN: dict[str, Any] = {"generator": Tensor, "envs": list, "opponents": list, "starts": Tensor, "state": (list, tuple)}
MOST_STEPS = 1 << 53  # beyond, a double, as TensorBoard and schedules use, does not tell one step from the next
MOMENTS = {"step", "exp_avg", "exp_avg_sq"}  # what Adam keeps of each parameter


def part_of(saved: Mapping[str, Any], rank: int, here: Sequence[int]) -> Mapping[str, Any]:
    """Return what the process `rank` saved of a run. here: how many processes, agents and splits there are now.

    Raises:
        ValueError: for what no trainer has saved, or for other numbers of them."""
    parts = [saved, *saved.get("others", [])] if isinstance(saved, Mapping) else [saved]
    for number, part in enumerate(parts):
        for name, kind in (KINDS | OWN if number == 0 else OWN).items():
            if not isinstance(part, Mapping) or not isinstance(part.get(name), kind):
                raise ValueError(f"A run cannot go on from a state without {name}: give what was saved, whole.")
    steps = saved["steps"]
    if not 0 <= steps < MOST_STEPS:
        raise ValueError(f"A run cannot go on from {steps} steps: give what was saved.")
    there = len(parts), len(saved["starts"]), len(saved["envs"])
    for what, saved_number, number in zip(("process(es)", "agents", "env split(s)"), there, here, strict=True):
        if saved_number != number:
            raise ValueError(f"The checkpoint has {saved_number} {what} and this run {number}: use as many.")
    return parts[rank]


def load_weights(policy: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Take over the weights of a policy. Raise ValueError for those of another one, and change nothing then."""
    check_weights(policy, weights)
    policy.load_state_dict(weights)


def check_weights(policy: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError for weights of another policy, or that are not finite. The policy may be on the meta device."""
    wanted = {name: x.shape for name, x in policy.state_dict().items()}
    if {name: x.shape for name, x in weights.items()} != wanted or not _finite(weights.values()):
        raise ValueError(
            f"The weights do not fit the policy that its config describes ({type(policy).__name__}, {policy.hidden} "
            f"units): use another checkpoint, or the world and the classes it was trained with."
        )


def _finite(tensors: Iterable[Tensor]) -> bool:
    return all(bool(x.isfinite().all()) for x in tensors)


def restore_moments(optimiser: torch.optim.Optimizer, state: Mapping[int, Mapping[str, Tensor]]) -> None:
    """Take over the moments of all parameters, or of none before the first update; settings stay the optimiser's own.
    Raise ValueError for those of other parameters, and change nothing then."""
    check_moments(optimiser, state)
    optimiser.load_state_dict(optimiser.state_dict() | {"state": dict(state)})


def check_moments(optimiser: torch.optim.Optimizer, state: Mapping[int, Mapping[str, Tensor]]) -> None:
    """Raise ValueError for moments of other parameters."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    if state and state.keys() != set(range(len(parameters))):
        raise ValueError(f"There are moments of {len(state)} parameters, and this network has {len(parameters)}.")
    for number, moments in state.items():
        shapes = {name: x.shape for name, x in moments.items()}
        wanted = parameters[number].shape
        if shapes != {name: torch.Size() if name == "step" else wanted for name in MOMENTS}:
            raise ValueError(f"The moments of parameter {number} are not those of weights {list(wanted)}.")


def check_memory(memory: Sequence[Tensor], own: Sequence[Tensor]) -> None:
    """Raise ValueError where agents remember something else than this network does, or what is not finite."""
    if [(x.shape, x.dtype) for x in memory] != [(x.shape, x.dtype) for x in own] or not _finite(memory):
        raise ValueError("The memory of agents is of another shape than this network's.")
