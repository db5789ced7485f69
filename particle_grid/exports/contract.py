"""The contract of an exported policy: what its inputs and outputs are, and how it was trained, as plain values."""

from typing import Any

import numpy as np
from torch import Tensor

from particle_grid.learn import checkpoint
from particle_grid.learn.heads import (
    BetaHead,
    BinsHead,
    CategoricalHead,
    ClippedHead,
    GaussianHead,
    Head,
    HurdleHead,
    JitterHead,
    MixtureHead,
    ProbitHead,
    SnappedHead,
    SnappedMovesHead,
    SquashedHead,
    hurdle,
)
from particle_grid.learn.heads.clipped import MIXTURE_BOUNDS
from particle_grid.learn.heads.probit import NormalMovesHead
from particle_grid.learn.policy import Policy
from particle_grid.runs.load import Checkpoint
from particle_grid.runs.results import Results
from particle_grid.sim import world

AGENTS = "agents"  # the length of the first axis of every array: any number, but the same for all
CELLS = {
    world.EMPTY: "empty",
    world.FOOD: "food",
    world.WALL: "wall",
    **{code: f"agent of colour {code - world.AGENT_1 + 1}" for code in range(world.AGENT_1, world.AGENT_1 + 4)},
}
FEATURES = (  # in the order of `particle_grid.sim.observation`
    "row in the field, in 1/256 of its height",
    "column in the field, in 1/256 of its width",
    "row within the agent's cell, in 1/256 of a cell",
    "column within the agent's cell, in 1/256 of a cell",
    "rows moved in the last step, in 1/127 of the speed, plus 128",
    "columns moved in the last step, in 1/127 of the speed, plus 128",
    "reward of the last step, in 1/127, plus 128",
)
ACTIONS = {
    "discrete": "moves along rows and columns: 0, 1 and 2 stand for -1, 0 and 1, in units of the speed",
    "continuous": "moves along rows and columns, in units of the speed; the environment clips them to [-1, 1]",
}
NOISE = "sample = head_outputs + std * noise, with standard normal noise"
OWN_NOISE = (
    "head_outputs holds the means and, unless there is a std, then the raw deviations: std = exp(middle + reach "
    "* tanh(raw + start)), with the numbers of log_std; sample = mean + std * noise, with standard normal noise"
)
ROUNDED = "action = sample, clipped to [-1, 1] and rounded"
SAMPLING = {
    CategoricalHead: "head_outputs holds the logits of each component in turn; choose from the softmax of each",
    BinsHead: "head_outputs holds the logits of each component in turn; choose from the softmax of each; "
    "action = values[choice]",
    GaussianHead: f"{NOISE}; action = sample",
    SquashedHead: f"{NOISE}; action = tanh(sample)",
    SnappedHead: f"{NOISE}; {ROUNDED}",
    SnappedMovesHead: f"{NOISE}; {ROUNDED}",
    ProbitHead: f"{OWN_NOISE}; {ROUNDED}",
    ClippedHead: f"{OWN_NOISE}; action = sample, clipped to [-1, 1]",
    MixtureHead: "head_outputs holds three logits, three shifts and three raw deviations for each component in turn; "
    "choose k from the softmax of the logits; action = k-th of (-1, 0, 1) + its shift + std * noise, clipped to "
    f"[-1, 1], with standard normal noise and std = exp({MIXTURE_BOUNDS.middle:g} + {MIXTURE_BOUNDS.reach:g} * "
    "tanh(its raw deviation))",
    JitterHead: "head_outputs holds the logits of each component in turn; choose from the softmax of each; action = "
    "values[choice] + noise, uniform over the distance between two values, clipped to [-1, 1]",
    BetaHead: "alpha and beta = 1 + softplus of the first and the second half of head_outputs; "
    "action = 2 * Beta(alpha, beta) - 1",
    HurdleHead: "head_outputs holds six numbers for each component in turn; choose from the softmax of the first four, "
    f"after adding {hurdle.LOG_ODDS:.6f} to the fourth; the first three choices are the actions -1, 0 and 1; the "
    "fourth is a sample from a logistic distribution cut off at -1 and 1, with location = tanh(fifth) and "
    f"scale = exp({hurdle.LEAST_LOG_SCALE / 2:g} * (1 - tanh(sixth + {hurdle.SHIFT:g})))",
}


def describe(saved: Checkpoint, policy: Policy, results: Results) -> dict[str, Any]:
    """Return the contract of a policy, which JSON can hold.

    Args:
        saved: what it was loaded from.
        policy: with its weights, on any device.
        results: final scores of its run; empty if they are unknown.
    """
    contract = {
        "version": checkpoint.VERSION,
        "config": saved.config.to_dict(),
        "steps": saved.steps,
        "observations": _observations(policy),
        "starts": {
            "dtype": "bool",
            "shape": [AGENTS],
            "meaning": "whether an observation is the first of an episode; if so, the agent's state is zeroed first",
        },
        "state": [_state(k, x) for k, x in enumerate(policy.initial_state(1))],
        "action": {
            "dtype": "int32" if saved.config.action == "discrete" else "float32",
            "shape": [AGENTS, policy.head.components],
            "meaning": f"the most probable {ACTIONS[saved.config.action]}",
        },
        "head_outputs": _head_outputs(policy.head),
        "value": {
            "dtype": "float32",
            "shape": [AGENTS],
            "meaning": "the estimated discounted sum of future rewards, times trainer.reward_scale",
        },
    }
    return contract | {"scores": scores} if (scores := _scores(saved, results)) else contract


def _observations(policy: Policy) -> dict[str, Any]:
    return {
        "dtype": "uint8",
        "shape": [AGENTS, policy.observation_size],
        "window": [policy.side, policy.side],
        "cells": {str(code): meaning for code, meaning in CELLS.items()},
        "features": list(FEATURES),
        "meaning": "the codes of the cells around the agent, row by row, then the features",
    }


def _state(number: int, x: Tensor) -> dict[str, Any]:
    return {
        "input": f"state_{number}",
        "output": f"next_state_{number}",
        "dtype": str(x.dtype).removeprefix("torch."),
        "shape": [AGENTS, *x.shape[1:]],
        "meaning": "the memory of the agents: zeros in the first step, then the output of the previous step",
    }


def _head_outputs(head: Head) -> dict[str, Any]:
    """Return what the outputs of a head mean. Only the author of another head knows how to sample from it."""
    kind = type(head)
    described: dict[str, Any] = {"dtype": "float32", "shape": [AGENTS, head.outputs], "head": kind.__name__}
    if kind in SAMPLING:
        described["sampling"] = SAMPLING[kind]
    if isinstance(head, CategoricalHead):
        described["choices"] = list(head.nvec)
    if isinstance(head, BinsHead):
        described["values"] = head.get_buffer("values").tolist()
    if isinstance(head, GaussianHead):
        described["std"] = head.log_std.exp().tolist()
    if isinstance(head, NormalMovesHead):
        described |= _deviation(head)
    return described


def _deviation(head: NormalMovesHead) -> dict[str, Any]:
    """Return the standard deviations that all observations share, or the numbers from which they are computed."""
    if head.raw_log_std is not None:
        return {"std": head.bounds.log_std(head.raw_log_std).exp().tolist()}
    return {"log_std": head.bounds._asdict()}


def _scores(saved: Checkpoint, results: Results) -> dict[str, Any]:
    """Return the final scores by player, as results.json has them; only a mean is known of a policy that ships."""
    if not results.scores:
        return {} if saved.score is None else {"sampled": {"mean_normalised_score": saved.score}}
    return {
        player: {"scores": scores.tolist(), "normalised_scores": _or_none(results.normalised[player])}
        for player, scores in results.scores.items()
    }


def _or_none(numbers: np.ndarray) -> list[float | None]:
    """Return numbers, with None instead of NaN, which JSON lacks."""
    return [None if np.isnan(number) else float(number) for number in numbers]
