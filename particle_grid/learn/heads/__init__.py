"""Heads turn the outputs of a policy into actions.

MultiDiscrete action spaces have a categorical head. For Box there are normal distributions (as they are, squashed or
snapped), Beta distributions, bins, and a mixture of the nine discrete moves with a density between them (hurdle).

All heads work in float32 on outputs f32[..., K] and samples [..., A], and sum log-probabilities and entropies over the
A components. A sample is what learning sees; `to_action` converts it to what the environment receives. Probabilities
are written out by hand, because distribution objects validate and allocate on every call.
"""

from typing import cast

import torch
from gymnasium.spaces import Box, MultiDiscrete, Space

from particle_grid.learn.heads.beta import BetaHead
from particle_grid.learn.heads.choices import BINS, BinsHead, CategoricalHead
from particle_grid.learn.heads.hurdle import HurdleHead
from particle_grid.learn.heads.normal import GaussianHead, SnappedHead, SquashedHead
from particle_grid.support import registry
from particle_grid.support.errors import UserError

Head = CategoricalHead | GaussianHead | BetaHead | HurdleHead
HEADS = ("auto", "gaussian", "squashed", "snapped", "beta", "bins", "hurdle")
HEAD_METHODS = ("sample", "log_prob_and_entropy", "mode", "to_action", "init_bias")
# Name in an earlier version -> name.
RENAMED_METHODS = {"evaluate": "log_prob_and_entropy", "greedy": "mode", "act": "to_action", "begin": "init_bias"}


def make_head(
    space: Space,
    head: str = "auto",
    bins: int = BINS,
    log_std_min: float = -3.0,
    log_std_max: float = 0.5,
    log_std_init: float = -0.5,
) -> Head:
    """Return the head for an action space.

    Args:
        space: MultiDiscrete([...]) or Box(-1, 1, (n,)).
        head: for MultiDiscrete `auto`, which is categorical; for Box one of HEADS, where `auto` is hurdle. For either,
            also a name that an installed package registers, or `my_module:MyHead`, a class that takes the space.
        bins: values along each axis, for the head of that name.
        log_std_min, log_std_max, log_std_init: bounds and start of the log standard deviation of normal heads.

    Raises:
        UserError: for an unknown head or space, and for bins that the head does not have.
    """
    place = head if registry.is_place(head) else registry.registered("head").get(str(head))
    if place and head not in HEADS:
        return _users_head(head, place, space)
    if head not in HEADS:
        raise registry.unknown_class("head", str(head), [*HEADS, *registry.registered("head")])
    if isinstance(space, MultiDiscrete) and space.nvec.ndim == 1 and not space.start.any():
        if head != "auto":
            raise UserError(f"policy.head={head} is for continuous actions: use auto, or action=continuous.")
        return CategoricalHead(space.nvec.tolist())
    components = _box_components(space)
    if head in ("auto", "hurdle"):
        if bins != BINS:
            raise UserError(f"policy.bins={bins} is for policy.head=bins: add that, or leave it out.")
        return HurdleHead(components)
    if head == "bins":
        return BinsHead(components, bins)
    if head == "beta":
        return BetaHead(components)
    kinds = {"gaussian": GaussianHead, "squashed": SquashedHead, "snapped": SnappedHead}
    return kinds[head](components, log_std_min, log_std_max, log_std_init)


def _box_components(space: Space) -> int:
    """Return the number of axes of a Box from -1 to 1. Raise UserError for any other space."""
    if not isinstance(space, Box) or len(space.shape) != 1:
        raise UserError(f"No policy can act in {space}: use MultiDiscrete([...]) or Box(-1, 1, (n,)).")
    if (space.low != -1).any() or (space.high != 1).any():
        raise UserError(
            f"The action box reaches from {space.low.tolist()} to {space.high.tolist()}: scale actions to [-1, 1] in "
            f"the environment."
        )
    return space.shape[0]


def _users_head(name: str, place: str, space: Space) -> Head:
    """Return a head whose class is not part of this package."""
    _refuse_renamed_methods(place)
    kind = registry.load("head", place, HEAD_METHODS)
    registry.check_constructor("head", name, kind, "let it be __init__(self, space)", space)
    head = cast(Head, kind(space))
    action = head.to_action(head.sample(torch.zeros(1, head.outputs), torch.Generator())[0])
    if action.is_floating_point() != isinstance(space, Box):
        raise UserError(
            f"policy.head={name} gives {action.dtype}, which are not actions in {space}: use another head, or the "
            f"other action form."
        )
    return head


def _refuse_renamed_methods(place: str) -> None:
    """Raise UserError for a class that was written for an earlier version."""
    kind = registry.load("head", place, ())
    renamed = {old: new for old, new in RENAMED_METHODS.items() if hasattr(kind, old) and not hasattr(kind, new)}
    if renamed:
        changes = ", ".join(f"{old} to {new}" for old, new in renamed.items())
        raise UserError(f"The head {place} has method names of an earlier version: rename {changes}.")
