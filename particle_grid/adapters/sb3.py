"""ParticleGrid as a Stable-Baselines3 VecEnv."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np

from particle_grid.env import ParticleGrid
from particle_grid.sim.rng import check_seed
from particle_grid.support.optional import load

VecEnv: Any = load("stable_baselines3.common.vec_env", "examples", "The adapter for Stable-Baselines3").VecEnv


class ParticleGridVecEnv(VecEnv):
    """Each agent is one environment, num_envs = N = worlds * agents.

    Stable-Baselines3 expects the first observation of a new episode in the step that ends the old one, and the last
    observation of the old episode in `infos[i]["terminal_observation"]`. So the flag is ParticleGrid's own. In the step
    in which an agent respawns, `dones` is set, the observation is the first of the new life, `terminal_observation` is
    what the agent saw before, and `TimeLimit.truncated` says that its value counts.

    In that last step the agent did nothing and got 0, and Stable-Baselines3 cannot leave it out. It learns from it as
    from a step that leads from an observation to itself: no action gains from it, but one step in `lifespan` pulls a
    value towards gamma times itself. `ParticleGridVectorEnv`, for Gymnasium, has no such step.

    Observations u8[N, size], rewards f32[N] and dones bool[N] are copies, because Stable-Baselines3 keeps the first and
    modifies the second. infos are N dicts; the first has what ParticleGrid reports every 32 steps.

    Args:
        settings: those of `ParticleGrid`.

    Raises:
        UserError: if no such environment can be built.
    """

    __copy__ = deepcopy  # a copy that shared arrays would move the agents of both

    def __init__(self, **settings: Any) -> None:
        self.native = ParticleGrid(**settings)
        self._actions = self.native.actions
        space = self.native.single_observation_space
        super().__init__(self.native.num_agents, space, self.native.single_action_space)

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Set the seed of the next reset; None for a random one."""
        check_seed(seed)
        seeds: Sequence[int | None] = super().seed(seed)
        return seeds

    def reset(self) -> np.ndarray:
        """Start all worlds, with the seed set before, if any; return observations u8[N, size]."""
        observations, _ = self.native.reset(self._seeds[0])
        self._reset_seeds()
        self._reset_options()
        return observations.copy()

    def step_async(self, actions: np.ndarray) -> None:
        """Store the actions [N, 2] for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Make one step of all agents; see above, and `ParticleGrid.step`."""
        ending = np.flatnonzero(self.native.due())
        last = self.native.observations[ending]  # a copy
        observations, rewards, _, truncations, reports = self.native.step(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        infos[0].update(*reports)
        for agent, observation in zip(ending.tolist(), last, strict=True):
            infos[agent] |= {"terminal_observation": observation, "TimeLimit.truncated": True}
        return observations.copy(), rewards.copy(), truncations.copy(), infos

    def close(self) -> None:
        """Close the window, if there is one."""
        self.native.close()

    def get_images(self) -> list[Any]:
        """Return one picture u8[H, W, 3], of the first world."""
        return [self.native.render()]

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute of the environment, once for each of the agents."""
        return [getattr(self.native, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the environment, which all agents share."""
        setattr(self.native, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of the environment once, and return its result for each of the agents."""
        result = getattr(self.native, method_name)(*method_args, **method_kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """Return False for each of the agents, because none is wrapped."""
        return [False for _ in self._get_indices(indices)]
