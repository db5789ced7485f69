"""ParticleGrid as a parallel environment of PettingZoo."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Space

from particle_grid.env import ParticleGrid
from particle_grid.support.optional import load

ParallelEnv: Any = load("pettingzoo", "pettingzoo", "The adapter for PettingZoo").ParallelEnv


class ParticleGridParallelEnv(ParallelEnv):
    """One world, whose agents are called agent_0, agent_1, and so on, in ParticleGrid's order.

    In PettingZoo an agent that is done leaves and never comes back. So by default there are no respawns
    (`lifespan=0`): after `max_episode_steps - 1` steps all agents are truncated at once, with the observations that
    they see then, which are the last of the episode, and `reset` begins the next one. Nothing ever terminates.

    With a `lifespan`, an agent is truncated with the last observation of its life, likewise, and leaves `agents`. Its
    body respawns in the world all the same and does nothing there, where the others see it. One first life in
    `lifespan` has no step: its agent is not in `agents` from the start. With `max_episode_steps=0` the
    world never ends.

    Observations u8[row] are rows of one copy made each step, rewards are floats, and infos hold what ParticleGrid
    reports every 32 steps, the same for each agent. All agents share one space of each kind.

    settings: those of `ParticleGrid`, but for `worlds`. Raises ValueError or TypeError for whatever cannot be built.
    """

    metadata: ClassVar[dict[str, Any]] = ParticleGrid.metadata | {"name": "particle_grid_v0", "is_parallelizable": True}
    __copy__ = deepcopy  # one that shared arrays would move the agents of both

    def __init__(self, *, lifespan: float = 0.0, max_episode_steps: int = 150, **settings: Any) -> None:
        if settings.get("worlds", 1) != 1:
            raise ValueError(f"worlds={settings['worlds']} cannot be: a ParallelEnv is one world, so make several.")
        if max_episode_steps == 1:
            raise ValueError(
                "max_episode_steps=1 leaves no step to act in: choose 2 or more, or 0 for a world without an end."
            )
        self.native = ParticleGrid(lifespan=lifespan, max_episode_steps=max_episode_steps, **settings)
        self.render_mode = self.native.render_mode
        self.possible_agents = [f"agent_{k}" for k in range(self.native.num_agents)]
        self.observation_spaces = dict.fromkeys(self.possible_agents, self.native.single_observation_space)
        self.action_spaces = dict.fromkeys(self.possible_agents, self.native.single_action_space)
        self._keep(np.zeros(0, np.intp))

    def _keep(self, rows: np.ndarray) -> None:
        """From now on the agents are those of these rows of ParticleGrid's arrays, i64[n]."""
        self._rows, self.agents = rows, [self.possible_agents[row] for row in rows.tolist()]

    def observation_space(self, agent: str) -> Space:
        """Box(0, 255, (row,), uint8)."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Space:
        """MultiDiscrete([3, 3]) or Box(-1, 1, (2,)), as the action form wants."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, dict[str, float]]]:
        """Starts the world: observations, and empty infos. No options are known; any are ignored."""
        observations, _ = self.native.reset(seed)
        self._keep(np.flatnonzero(~self.native.due()))
        return dict(zip(self.agents, observations[self._rows], strict=True)), {name: {} for name in self.agents}

    def step(
        self, actions: dict[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, float]]]:
        """One step of all `agents`, whose actions are integers or floats [2] as the action form wants.

        Raises RuntimeError where no agents are left, and ValueError or TypeError for actions that do not fit."""
        if not self.agents:
            raise RuntimeError("There are no agents in this episode any more: call reset() before step().")
        observations, rewards, _, _, reports = self.native.step(self._everyone(actions))
        names, rows, due = self.agents, self._rows, self.native.due()
        self._keep(rows[~due[rows]])
        return (
            dict(zip(names, observations[rows], strict=True)),  # rows of a copy, not of the buffer
            dict(zip(names, rewards[rows].tolist(), strict=True)),
            dict.fromkeys(names, False),
            dict(zip(names, due[rows].tolist(), strict=True)),
            {name: dict(*reports) for name in names},
        )

    def _everyone(self, actions: dict[str, np.ndarray]) -> np.ndarray:
        """The actions of all bodies, [N, 2]: those whose agent has left stay where they are."""
        if not isinstance(actions, Mapping):
            raise TypeError(f"actions are a {type(actions).__name__}: give a dict with one for each name in `agents`.")
        for name in sorted(actions.keys() ^ set(self.agents), key=str):
            problem = "is not in `agents`" if name in actions else "has no action"
            raise ValueError(f"{name} {problem}: give one action for each name in `agents`.")
        try:
            given = np.stack([actions[name] for name in self.agents])
        except ValueError as error:
            raise ValueError(f"actions cannot be put together ({error}): give two numbers for each agent.") from error
        everyone = np.full((self.native.num_agents, *given.shape[1:]), self.native.rules.centre, given.dtype)
        everyone[self._rows] = given
        return everyone

    def render(self) -> Any:
        """A picture of the world, u8[H, W, 3] or text; None where it is shown in a window."""
        return self.native.render()

    def close(self) -> None:
        """Closes the window, if there is one."""
        self.native.close()
