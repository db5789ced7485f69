"""The first actions of every head can have the distribution of discrete moves."""

import pytest
import torch
from gymnasium.spaces import Box, MultiDiscrete

from particle_grid.learn.heads import HEADS, BetaHead
from particle_grid.learn.heads.numbers import SHARE
from particle_grid.learn.policy import make_policy
from particle_grid.support.errors import UserError

BOX = Box(-1, 1, (2,))
MOVES = MultiDiscrete([3, 3])


@pytest.mark.parametrize("head", ["discrete", *HEADS[1:]])
def test_first_actions_can_have_the_distribution_of_discrete_moves_with_every_head(head):
    space = MOVES if head == "discrete" else BOX
    name = "auto" if head == "discrete" else head
    policy = make_policy("mlp", 2, space, hidden=8, head=name, init_action_rms=0.5, init_actions="moves")
    out = policy.actor.bias.detach().expand(40_000, -1)
    actions = policy.head.to_action(policy.head.sample(out, torch.Generator().manual_seed(0))[0]).detach()
    nearest = (actions - 1.0 if head == "discrete" else actions).clamp(-1, 1).round()
    for move, share in ((-1, 0.125), (0, 0.75), (1, 0.125)):
        assert abs((nearest == move).float().mean().item() - share) < 0.04
    if head in ("bins", "hurdle"):  # both can make other moves, which are rare at first
        others = (actions.abs() > 0) & (actions.abs() < 1)
        assert abs(others.float().mean().item() - SHARE) < 0.01


def test_an_even_number_of_bins_cannot_start_with_the_discrete_moves():
    with pytest.raises(UserError, match=r"policy.bins=4 has no choice for 0, which policy.init_actions=moves needs"):
        make_policy("mlp", 2, BOX, head="bins", bins=4, init_action_rms=0.5, init_actions="moves")


class OwnHead(BetaHead):
    """A head whose author knows nothing of moves."""

    def __init__(self, space):
        super().__init__(2)

    def init_bias(self, rms):
        return super().init_bias(rms)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init_actions": "size"}, "policy.init_actions='size' is invalid: use rms or moves."),
        ({"init_actions": "moves"}, "policy.init_actions=moves has no effect by itself: set policy.init_action_rms"),
        (
            {"init_actions": "moves", "init_action_rms": 0.5, "head": f"{__name__}:OwnHead"},
            r"policy.init_actions=moves needs init_bias\(rms, moves\) of OwnHead: add the argument",
        ),
    ],
)
def test_an_impossible_distribution_of_first_actions_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        make_policy("mlp", 2, BOX, **options)
