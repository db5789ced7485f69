"""ParticleGrid as a vector environment of Gymnasium."""

from copy import deepcopy
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from particle_grid.env import ParticleGrid
from particle_grid.sim.rng import check_seed


class ParticleGridVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """`gymnasium.make_vec("ParticleGrid/Group-v0", action="continuous", ...)`: each agent is an environment of its own.

    **Autoreset: NEXT_STEP, exactly.** In Gymnasium's words: the step that ends an episode returns its last observation,
    its reward and the flag; the next step ignores the action and returns the first observation of the new episode,
    reward 0 and no flag. In ParticleGrid an agent that respawns ignores its action, gets reward 0 and sees the first
    observation of its new episode, as in that next step; only its flag comes with the respawn, which is one step late.
    Who respawns is settled a step before, though (`ParticleGrid.due`), so the flag is returned there, with the last
    observation, where Gymnasium wants it; nothing else is changed. SAME_STEP would need the first observation of the
    new episode a step before it exists, and with DISABLED nothing would respawn by itself.

    So a learner bootstraps from the value of the observation that comes *with* the flag, and leaves out the step
    *after* it. One life in `lifespan` has no step at all: then the flag is set in two steps running, and both have one
    to be left out behind them. Where it is an agent's first life there is no step to set the flag in, so `reset` tells,
    in `infos["due"]`, bool[num_envs], whose first step is to be left out too.

    Observations u8[num_envs, row], rewards f32[num_envs] and terminations bool[num_envs], which are never set, are
    ParticleGrid's own buffers: the same ones each time, overwritten by the next step. Copy what you keep, or say
    copy=True. truncations bool[num_envs] are new each step. infos hold, every 32 steps, `score`, `moved` and what else
    ParticleGrid reports, the same number for every agent: f64[num_envs].

    num_envs: as many agents in all; 1, which `make_vec` passes where nothing is said, leaves them to `settings`.
    copy: return copies. settings: those of `ParticleGrid`, `task` among them.

    Raises ValueError or TypeError, in one sentence, for whatever cannot be built.
    """

    metadata: dict[str, Any] = ParticleGrid.metadata | {"autoreset_mode": AutoresetMode.NEXT_STEP}
    __copy__ = deepcopy  # one that shared arrays would move the agents of both

    def __init__(self, num_envs: int = 1, *, copy: bool = False, **settings: Any) -> None:
        check_whole("num_envs", num_envs)
        if num_envs != 1:
            settings = settings | {"agents": agents_in_each(num_envs, **settings)}
        self.native, self.copy = ParticleGrid(**settings), copy
        self.num_envs, self.render_mode = self.native.num_agents, self.native.render_mode
        self.single_observation_space = self.native.single_observation_space
        self.single_action_space = self.native.single_action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts all worlds: observations, and infos as above. Raises ValueError for the option `reset_mask` and for
        what is no seed, and TypeError for options that are no dict."""
        if not isinstance(options, dict | None):
            raise TypeError(f"options={options!r} are none: give a dict, or leave them out.")
        if options and "reset_mask" in options:
            raise ValueError("options['reset_mask'] cannot be: agents respawn by themselves; call reset() without it.")
        check_seed(seed)
        super().reset(seed=None if seed is None else int(seed))  # Gymnasium takes no seeds of NumPy's
        observations, _ = self.native.reset(seed)
        return self._given(observations), self._told({"due": self.native.due()})

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One step of all agents, as above. actions [num_envs, 2]; raises what `ParticleGrid.step` raises."""
        observations, rewards, terminals, _, reports = self.native.step(actions)
        infos = {name: np.full(self.num_envs, value) for report in reports for name, value in report.items()}
        given = self._given(observations), self._given(rewards), self._given(terminals)
        return *given, self.native.due(), self._told(infos)

    def _told(self, infos: dict[str, np.ndarray]) -> dict[str, Any]:
        """With the masks that Gymnasium's wrappers ask for, of who is told: all."""
        return infos | {f"_{name}": np.ones(self.num_envs, bool) for name in infos}

    def _given(self, buffer: np.ndarray) -> np.ndarray:
        return buffer.copy() if self.copy else buffer

    def render(self) -> tuple[Any, ...] | None:
        """One picture, u8[H, W, 3] or text, of the first world; None where it is shown in a window."""
        picture = self.native.render()
        return None if picture is None else (picture,)

    def close_extras(self, **_: Any) -> None:
        """Closes the window, if there is one."""
        self.native.close()


def check_whole(name: str, value: Any) -> None:
    """Raises TypeError for what is not a whole number."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}={value!r} is not a whole number.")


def agents_in_each(num_envs: int, worlds: int = 1, agents: int | None = None, **_: Any) -> int:
    """Agents of each world where there are num_envs in all. Raises ValueError where that is no whole number of them, or
    not as many as are asked for, and TypeError for worlds that are no number."""
    check_whole("worlds", worlds)
    each = num_envs // max(worlds, 1) if agents is None else agents
    if each * worlds != num_envs:
        asked = f"worlds={worlds}" if agents is None else f"worlds={worlds} times agents={agents}"
        raise ValueError(f"num_envs={num_envs} does not agree with {asked}: leave one of them out.")
    return each
