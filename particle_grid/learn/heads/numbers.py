"""Checks and solutions of the numbers that heads start with."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from particle_grid.support.errors import UserError

LARGEST_LOG_STD = 20.0  # beyond, samples all hit the mean or the edges of the box; much further, float32 overflows

MOVES = (-1.0, 0.0, 1.0)  # what discrete actions can do along an axis
SHARE = 0.1  # probability of values other than -1, 0 and 1 if a head starts with these moves


class Bounds(NamedTuple):
    """Smooth bounds of a log standard deviation, middle - reach to middle + reach, and the raw value of its start."""

    middle: float
    reach: float
    start: float

    def log_std(self, raw: Tensor) -> Tensor:
        """Return the log standard deviations of raw values, within the bounds."""
        return self.middle + self.reach * torch.tanh(raw)


def log_std_bounds(log_std_min: float, log_std_max: float, log_std_init: float) -> Bounds:
    """Return the bounds of a log standard deviation.

    Raises:
        UserError: if a bound is out of range, or log_std_init is not between the bounds.
    """
    check_number("log_std_min", log_std_min, -LARGEST_LOG_STD, LARGEST_LOG_STD)
    check_number("log_std_max", log_std_max, -LARGEST_LOG_STD, LARGEST_LOG_STD)
    if isinstance(log_std_init, bool) or not isinstance(log_std_init, int | float):
        raise UserError(f"log_std_init={log_std_init!r} is not a number: give one between the bounds.")
    middle = (log_std_max + log_std_min) / 2
    reach = (log_std_max - log_std_min) / 2
    if not abs(log_std_init - middle) < reach:  # after rounding, or atanh would be infinite
        raise UserError(
            f"log_std_init={log_std_init} is not between log_std_min={log_std_min} and log_std_max={log_std_max}: "
            f"choose a number that is."
        )
    return Bounds(middle, reach, math.atanh((log_std_init - middle) / reach))


def check_number(name: str, value: object, least: float, most: float) -> None:
    """Raise UserError unless a value is a number between two bounds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise UserError(f"{name}={value!r} is invalid: it must be a number from {least:g} to {most:g}.")


def action_rms(actions: Tensor, moves: bool) -> Tensor:
    """Return the root mean square over the first axis of actions, as the environment clips them.

    Args:
        actions: f32[n, ...].
        moves: of the nearest moves -1, 0 and 1 instead, which is the square root of the share of moves other than 0.
    """
    clipped = actions.clamp(-1, 1)
    return (clipped.round() if moves else clipped).square().mean(0).sqrt()


def normal_quantiles() -> Tensor:
    """Return evenly spaced quantiles of the standard normal distribution, f32[4096]."""
    return torch.special.ndtri((torch.arange(4096) + 0.5) / 4096)


def solve(rising: Callable[[float], float], target: float, low: float, high: float) -> float:
    """Return where between low and high a rising function of actions reaches a target size.

    Raises:
        UserError: if it does not reach the target there.
    """
    if not rising(low) <= target <= rising(high):
        raise UserError(
            f"policy.init_action_rms={target} is out of reach for this head: it must be between {rising(low):.2f} and "
            f"{rising(high):.2f}."
        )
    for _ in range(50):
        middle = (low + high) / 2
        if rising(middle) < target:
            low = middle
        else:
            high = middle
    return low


def move_logits(rms: float, share: float, square: float) -> Tensor:
    """Return the log-probabilities, f64[3], of the moves -1, 0 and 1 that are taken first.

    Args:
        rms: root mean square of all first actions.
        share: probability of all other values together.
        square: mean square of these values.

    Raises:
        UserError: if no probabilities lead to this root mean square.
    """
    squares = torch.tensor(MOVES, dtype=torch.float64).square()

    def spread(weight: float) -> float:
        return float(((1 - share) * ((weight * squares).softmax(0) @ squares) + share * square).sqrt())

    return (solve(spread, rms, -50, 50) * squares).log_softmax(0) + math.log(1 - share)
