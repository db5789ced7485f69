"""Checks and solutions of the numbers that heads start with."""

from collections.abc import Callable

from particle_grid.support.errors import UserError


def check_number(name: str, value: object, least: float, most: float) -> None:
    """Raise UserError unless a value is a number between two bounds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise UserError(f"{name}={value!r} is invalid: it must be a number from {least:g} to {most:g}.")


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
