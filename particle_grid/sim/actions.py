"""The two action forms: which actions are valid, what they cost, and which action leads towards a goal."""

from collections.abc import Callable
from typing import Any

import numpy as np

from particle_grid.sim import observation
from particle_grid.sim.state import Rules
from particle_grid.support.errors import UserError, UserTypeError
from particle_grid.support.jit import parallel_kernel, prange

ACTIONS = ("discrete", "continuous")
ZERO, ONE = np.float32(0), np.float32(1)
HALF, INFINITY = np.float32(0.5), np.float32(np.inf)
UNIT = np.float32(observation.SIGNED_UNIT)


def check_form(action: Any) -> None:
    """Raise UserError unless `action` names an action form."""
    if not isinstance(action, str) or action not in ACTIONS:
        raise UserError(f"There is no action form {action!r}. Choose one of: {', '.join(ACTIONS)}.")


def valid(actions: Any, buffer: np.ndarray, checked: bool, dead_zone: float = 0.0) -> np.ndarray:
    """Return actions as kernels take them: contiguous, with the shape and dtype of the action buffer.

    Args:
        actions: integers or floats, [N, 2].
        buffer: the environment's action buffer, int32 (discrete) or f32 (continuous) [N, 2].
        checked: also raise for actions that are out of range, NaN or infinite.
        dead_zone: components of continuous actions that are smaller become 0.

    Raises:
        UserError: if shape, kind or, in checked mode, values are wrong.
    """
    if type(actions) is not np.ndarray or actions.dtype != buffer.dtype or not actions.flags.carray or checked:
        actions = _converted(_as_array(actions, buffer), buffer, checked)
    if actions.shape != buffer.shape:
        raise UserError(f"actions have the shape {actions.shape}, but {len(buffer)} agents need {buffer.shape}.")
    if dead_zone and buffer.dtype.kind == "f":
        return np.where(np.abs(actions) < np.float32(dead_zone), ZERO, actions)
    return actions


def _as_array(actions: Any, buffer: np.ndarray) -> np.ndarray:
    try:
        return np.asarray(actions)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserTypeError(
            f"actions are a {type(actions).__name__} that does not convert to an array ({error}): give a NumPy array "
            f"{list(buffer.shape)}."
        ) from error


def _converted(actions: np.ndarray, buffer: np.ndarray, checked: bool) -> np.ndarray:
    """Convert integers or floats of any width to the buffer's."""
    discrete = buffer.dtype.kind == "i"
    if actions.dtype.kind not in ("iu" if discrete else "f"):
        kind = "integers (0, 1, 2)" if discrete else "floats in [-1, 1]"
        raise UserTypeError(f"actions are {actions.dtype}, but this action form needs {kind}: convert them first.")
    low, high = (0, 2) if discrete else (-1, 1)
    if checked and actions.shape == buffer.shape:
        _check_range(actions, low, high)
    if discrete:  # before the conversion, in which large integers would wrap around
        actions = np.clip(actions, low, high)
    with np.errstate(over="ignore"):  # a float64 beyond the range of float32 becomes infinite
        return np.require(actions, buffer.dtype, ["C", "A"])


def _check_range(actions: np.ndarray, low: int, high: int) -> None:
    wrong = np.flatnonzero(~((actions >= low) & (actions <= high)).all(1))  # NaN fails both comparisons
    if len(wrong):
        raise UserError(
            f"The action {actions[wrong[0]]} of agent {wrong[0]} is not within [{low}, {high}]: clip it, or build the "
            f"environment with checked=False, which clips actions and lets agents with NaN stay."
        )


def repeat(
    advance: Callable[[np.ndarray], None],
    times: int,
    actions: np.ndarray,
    rules: Rules,
    rewards: np.ndarray,
    truncations: np.ndarray,
) -> None:
    """Repeat a step that has been made, and write what all of them add up to.

    An agent that respawns in one of them waits for its next action, and has no reward, as in a step that truncates.

    Args:
        advance: makes a step with some actions, and writes its rewards and truncations.
        times: number of steps that the actions last.
        actions: of the step that has been made, [N, 2].
        rules: the rules of the simulation.
        rewards: f32[N], the result is the mean of all steps.
        truncations: bool[N], the result tells who respawned in any of them.
    """
    total = rewards.copy()
    truncated = truncations.copy()
    stay = actions.dtype.type(rules.centre)
    for _ in range(times - 1):
        advance(np.where(truncated[:, None], stay, actions))
        total += rewards
        truncated |= truncations
    rewards[:] = np.where(truncated, 0, total / times)
    truncations[:] = truncated


def actions_for(aim: np.ndarray, observations: np.ndarray, rules: Rules, discrete: bool) -> np.ndarray:
    """Return the actions that lead towards `aim`.

    With inertia, the action also corrects for the agent's current velocity, which is read off the last displacement.

    Args:
        aim: f32[N, 2], where each agent wants to be, in cells from where it is.
        observations: u8[N, size], which hold the last displacements.
        rules: the rules of the simulation.
        discrete: the action form.

    Returns:
        int32[N, 2] in {0, 1, 2}, or f32[N, 2] in [-1, 1].
    """
    actions = np.empty(aim.shape, np.int32 if discrete else np.float32)
    steer_towards(aim, observations, rules.momentum, rules.speed, rules.gain, discrete, actions)
    return actions


@parallel_kernel
def steer_towards(aim, observations, momentum, speed, gain, discrete, actions):
    """Write the actions [N, 2] of `actions_for`, for three of the rules."""
    for i in prange(len(aim)):
        moved = observation.last_direction(observations[i])
        for axis in range(2):
            wanted = aim[i, axis]
            if momentum > ZERO or not discrete:
                wanted = min(max(wanted, -speed), speed)
            if momentum > ZERO:
                last = np.float32(moved[axis]) / UNIT * speed
                wanted = (wanted - momentum * last) / gain
            elif not discrete:
                wanted = wanted / gain
            if discrete:
                actions[i, axis] = 1 + (wanted >= HALF) - (wanted <= -HALF)
            else:
                actions[i, axis] = min(max(wanted, -ONE), ONE)


@parallel_kernel
def charge(rewards, actions, centre, cost):
    """Charge agents for their effort: rewards f32[N] become (1 - cost) * reward - cost * effort.

    The effort is the mean square of the action's components, each clipped to 1, whether or not the agent could move.
    """
    for i in prange(len(rewards)):
        row, column = np.float32(actions[i, 0]) - centre, np.float32(actions[i, 1]) - centre
        finite = (abs(row) < INFINITY) & (abs(column) < INFINITY)
        row, column = min(max(row, -ONE), ONE), min(max(column, -ONE), ONE)
        effort = HALF * (row * row + column * column) if finite else ZERO
        rewards[i] = (ONE - cost) * rewards[i] - cost * effort
