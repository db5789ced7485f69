"""ParticleGrid as a PettingZoo parallel environment."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box, Space

from particle_grid.adapters import VERSION, check_episodes, show_in_window, with_lifetime
from particle_grid.env import ParticleGrid
from particle_grid.support.errors import UserError, UserRuntimeError, UserTypeError
from particle_grid.support.optional import load

ParallelEnv: Any = load("pettingzoo", "pettingzoo", "The adapter for PettingZoo").ParallelEnv


class ParticleGridParallelEnv(ParallelEnv):
    """One world, whose agents are named agent_0, agent_1, and so on, in ParticleGrid's order.

    In PettingZoo an agent that is done never comes back. Therefore agents do not respawn by default (`lifespan=0`):
    after `max_episode_steps - 1` steps all agents are truncated at once, with the last observations of the episode, and
    `reset` starts the next one. Nothing ever terminates.

    With a `lifespan`, an agent is likewise truncated with the last observation of its life, and leaves `agents`. Its
    body still respawns in the world, where it does nothing but is seen by the others. One first life in `lifespan` has
    no step, and its agent is not in `agents` from the start. With `max_episode_steps=0` the world never ends.

    Observations u8[size] are rows of one copy made in each step, and rewards are floats. Every 32 steps, infos hold
    what ParticleGrid reports, the same for each agent. All agents share one space of each kind. `state` returns the
    observations of all agents, u8[N * size], which is the point of view of centralised critics, as in MPE.

    With `render_mode="human"`, each reset and each step show the world in a window, as in PettingZoo.

    Args:
        settings: those of `ParticleGrid`, with one world. Unless they have a `world`, `lifespan` (0: never) and
            `max_episode_steps` default to `particle_grid.adapters.LIFETIME`.

    Raises:
        UserError: if no such environment can be built.
    """

    metadata: ClassVar[dict[str, Any]] = ParticleGrid.metadata | {
        "name": f"particle_grid_v{VERSION}",
        "is_parallelizable": True,
    }
    __copy__ = deepcopy  # a copy that shared arrays would move the agents of both

    def __init__(self, **settings: Any) -> None:
        self.native = ParticleGrid(**with_lifetime(settings))
        if self.native.world.worlds != 1:
            raise UserError(f"worlds={self.native.world.worlds} is not possible: a ParallelEnv is one world.")
        check_episodes(self.native.world)
        self.render_mode = self.native.render_mode
        self.possible_agents = [f"agent_{k}" for k in range(self.native.num_agents)]
        self.observation_spaces = dict.fromkeys(self.possible_agents, self.native.single_observation_space)
        self.action_spaces = dict.fromkeys(self.possible_agents, self.native.single_action_space)
        self.state_space = Box(0, 255, (self.native.observations.size,), np.uint8)
        self._keep(np.zeros(0, np.intp))

    def _keep(self, numbers: np.ndarray) -> None:
        """Set `agents` to those with these numbers in ParticleGrid's arrays, i64[n]."""
        self._numbers = numbers
        self.agents = [self.possible_agents[number] for number in numbers.tolist()]

    def observation_space(self, agent: str) -> Space:
        """Return Box(0, 255, (size,), uint8).

        Raises:
            UserError: if `agent` is not in `possible_agents`.
        """
        return self._of(agent, self.observation_spaces)

    def action_space(self, agent: str) -> Space:
        """Return MultiDiscrete([3, 3]) or Box(-1, 1, (2,)), depending on the action form.

        Raises:
            UserError: if `agent` is not in `possible_agents`.
        """
        return self._of(agent, self.action_spaces)

    def _of(self, agent: object, spaces: Mapping[str, Space]) -> Space:
        """Return the space of an agent."""
        if not isinstance(agent, str) or agent not in spaces:
            raise UserError(
                f"There is no agent {agent!r}: `possible_agents` are {self.possible_agents[0]} to "
                f"{self.possible_agents[-1]}."
            )
        return spaces[agent]

    def state(self) -> np.ndarray:
        """Return the observations of all bodies in one row, u8[N * size], also of those whose agent has left.

        Raises:
            UserError: before the first reset.
        """
        self.native.check_ready("state")
        return self.native.observations.flatten()  # a copy

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, dict[str, float]]]:
        """Start the world; return observations and empty infos. Options are ignored."""
        observations, _ = self.native.reset(seed)
        show_in_window(self.native)
        self._keep(np.flatnonzero(~self.native.due()))
        return dict(zip(self.agents, observations[self._numbers], strict=True)), {name: {} for name in self.agents}

    def step(
        self, actions: dict[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, float]]]:
        """Make one step of all `agents`, whose actions are integers or floats [2], depending on the action form.

        Raises:
            UserError: if no agents are left, or if actions do not fit.
        """
        if not self.agents:
            raise UserRuntimeError("No agents are left in this episode: call reset() before step().")
        observations, rewards, _, _, reports = self.native.step(self._everyone(actions))
        show_in_window(self.native)
        names, numbers = self.agents, self._numbers
        due = self.native.due()
        self._keep(numbers[~due[numbers]])
        return (
            dict(zip(names, observations[numbers], strict=True)),  # rows of a copy, not of the buffer
            dict(zip(names, rewards[numbers].tolist(), strict=True)),
            dict.fromkeys(names, False),
            dict(zip(names, due[numbers].tolist(), strict=True)),
            {name: dict(*reports) for name in names},
        )

    def _everyone(self, actions: dict[str, np.ndarray]) -> np.ndarray:
        """Return actions for all bodies, [N, 2]; those whose agent has left stay where they are."""
        if not isinstance(actions, Mapping):
            raise UserTypeError(
                f"actions are a {type(actions).__name__}: give a dict with an action for each of `agents`."
            )
        remedy = "give one action for each name in `agents`"
        for name in sorted(actions.keys() - set(self.agents), key=str):
            raise UserError(f"{name} is not in `agents`: {remedy}.")
        for name in self.agents:
            if name not in actions:
                raise UserError(f"{name} has no action: {remedy}.")
        try:
            given = np.stack([actions[name] for name in self.agents])
        except ValueError as error:
            raise UserError(f"actions do not form an array ({error}): give two numbers for each agent.") from error
        everyone = np.full((self.native.num_agents, *given.shape[1:]), self.native.rules.centre, given.dtype)
        everyone[self._numbers] = given
        return everyone

    def render(self) -> Any:
        """Return a picture of the world, u8[H, W, 3] or text; None if it is shown in a window."""
        return self.native.render()

    def close(self) -> None:
        """Close the window, if there is one."""
        self.native.close()


def parallel_env(**settings: Any) -> ParticleGridParallelEnv:
    """Make a `ParticleGridParallelEnv` under the name that PettingZoo gives such functions."""
    return ParticleGridParallelEnv(**settings)
