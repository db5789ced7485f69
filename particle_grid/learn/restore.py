"""Check what a checkpoint says about a network before compiled code, which trusts shapes, gets it."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

MOMENTS = {"step", "exp_avg", "exp_avg_sq"}  # what Adam keeps of each parameter


def check_weights(policy: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError for weights of another policy, which may be on the meta device, where it needs no memory."""
    if {name: x.shape for name, x in policy.state_dict().items()} != {name: x.shape for name, x in weights.items()}:
        raise ValueError(
            f"The weights do not fit the policy that its config describes ({type(policy).__name__}, {policy.hidden} "
            f"units): use another checkpoint, or the world and the classes it was trained with."
        )


def load_weights(policy: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Take over the weights of a policy. Raise ValueError for those of another one."""
    check_weights(policy, weights)
    policy.load_state_dict(weights)


def restore_moments(optimiser: torch.optim.Optimizer, state: Mapping[int, Mapping[str, Tensor]]) -> None:
    """Take over the moments of all parameters, or of none before the first update; settings stay the optimiser's own.

    Raises:
        ValueError: for moments of other parameters."""
    settings = optimiser.state_dict()
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    if state and state.keys() != set(range(len(parameters))):
        raise ValueError(f"There are moments of {len(state)} parameters, and this network has {len(parameters)}.")
    for number, moments in state.items():
        shapes = {name: x.shape for name, x in moments.items()}
        wanted = parameters[number].shape
        if shapes != {name: torch.Size() if name == "step" else wanted for name in MOMENTS}:
            raise ValueError(f"The moments of parameter {number} are not those of weights {list(wanted)}.")
    optimiser.load_state_dict(settings | {"state": dict(state)})


def check_memory(memory: Sequence[Tensor], own: Sequence[Tensor]) -> None:
    """Raise ValueError where agents remember something else than this network does."""
    if [(x.shape, x.dtype) for x in memory] != [(x.shape, x.dtype) for x in own]:
        raise ValueError("The memory of agents is of another shape than this network's.")
