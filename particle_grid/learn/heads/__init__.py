"""Heads turn the outputs of a policy into actions.

MultiDiscrete action spaces have a categorical head. For Box there are normal distributions (as they are, squashed or
snapped), Beta distributions, bins, and the nine discrete moves with a density between them (hurdle). Other heads are
steps between these, which a study compares: normal distributions with the likelihood of the rounded move (probit) or of
the clipped action (capg), a mixture of three of the latter, and bins with uniform noise (jitter).

All heads work in float32 on outputs f32[..., K] and samples [..., A], and sum log-probabilities and entropies over the
A components. A sample is what learning sees; `to_action` converts it to what the environment receives. Probabilities
are written out by hand, because distribution objects validate and allocate on every call.
"""

from collections.abc import Callable
from typing import cast

import torch
from gymnasium.spaces import Box, MultiDiscrete, Space

from particle_grid.learn.heads.beta import BetaHead
from particle_grid.learn.heads.choices import BINS, BinsHead, CategoricalHead, JitterHead
from particle_grid.learn.heads.clipped import ClippedHead, MixtureHead
from particle_grid.learn.heads.hurdle import HurdleHead
from particle_grid.learn.heads.normal import GaussianHead, SnappedHead, SnappedMovesHead, SquashedHead
from particle_grid.learn.heads.numbers import log_std_bounds
from particle_grid.learn.heads.probit import ProbitHead
from particle_grid.support import registry
from particle_grid.support.errors import UserError

Head = CategoricalHead | GaussianHead | BetaHead | HurdleHead | ProbitHead | ClippedHead | MixtureHead
HEADS = (
    *("auto", "gaussian", "squashed", "snapped", "beta", "bins", "hurdle"),
    *("probit", "capg", "mixture", "jitter"),
)
HEAD_METHODS = ("sample", "log_prob_and_entropy", "mode", "to_action", "init_bias")
# Name in an earlier version -> name.
RENAMED_METHODS = {"evaluate": "log_prob_and_entropy", "greedy": "mode", "act": "to_action", "begin": "init_bias"}
# Option -> its default, and the heads that have it.
OWN_OPTIONS: dict[str, tuple[object, tuple[str, ...]]] = {
    "bins": (BINS, ("bins", "jitter")),
    "shared_std": (False, ("probit", "capg")),
    "move_entropy": (False, ("snapped",)),
}


def make_head(
    space: Space,
    head: str = "auto",
    bins: int = BINS,
    log_std_min: float = -3.0,
    log_std_max: float = 0.5,
    log_std_init: float = -0.5,
    shared_std: bool = False,
    move_entropy: bool = False,
) -> Head:
    """Return the head for an action space.

    Args:
        space: MultiDiscrete([...]) or Box(-1, 1, (n,)).
        head: for MultiDiscrete `auto`, which is categorical; for Box one of HEADS, where `auto` is hurdle. For either,
            also a name that an installed package registers, or `my_module:MyHead`, a class that takes the space.
        bins: values along each axis, for bins and jitter.
        log_std_min, log_std_max, log_std_init: bounds and start of the log standard deviation of normal heads.
        shared_std: whether one standard deviation serves all observations, for probit and capg.
        move_entropy: whether the entropy is that of the executed moves, for snapped.

    Raises:
        UserError: for an unknown head or space, and for an option that the head does not have.
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
    _check_own_options(head, {"bins": bins, "shared_std": shared_std, "move_entropy": move_entropy})
    deviation = (log_std_min, log_std_max, log_std_init)
    return _box_head(head, _box_components(space), bins, deviation, shared_std, move_entropy)


def _box_head(
    head: str, components: int, bins: int, deviation: tuple[float, float, float], shared_std: bool, move_entropy: bool
) -> Head:
    """Return a head for continuous actions, with the minimum, maximum and start of log standard deviations."""
    makers: dict[str, Callable[[], Head]] = {
        "gaussian": lambda: GaussianHead(components, *deviation),
        "squashed": lambda: SquashedHead(components, *deviation),
        "snapped": lambda: (SnappedMovesHead if move_entropy else SnappedHead)(components, *deviation),
        "probit": lambda: ProbitHead(components, log_std_bounds(*deviation), shared_std),
        "capg": lambda: ClippedHead(components, log_std_bounds(*deviation), shared_std),
        "bins": lambda: BinsHead(components, bins),
        "jitter": lambda: JitterHead(components, bins),
        "beta": lambda: BetaHead(components),
        "mixture": lambda: MixtureHead(components),
    }
    return makers[head]() if head in makers else HurdleHead(components)


def _check_own_options(head: str, given: dict[str, object]) -> None:
    """Raise UserError for an option that a head does not have, and for a switch that is neither true nor false."""
    for option, value in given.items():
        default, heads = OWN_OPTIONS[option]
        if isinstance(default, bool) and not isinstance(value, bool):
            raise UserError(f"policy.{option}={value!r} is invalid: give true or false.")
        if value != default and head not in heads:
            raise UserError(
                f"policy.{option}={value} is for policy.head={' or '.join(heads)}: add that, or leave it out."
            )


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
