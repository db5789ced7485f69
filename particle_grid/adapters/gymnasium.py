"""ParticleGrid as a Gymnasium vector environment."""

from copy import deepcopy
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from particle_grid.env import ParticleGrid
from particle_grid.sim.rng import check_seed
from particle_grid.sim.world import World
from particle_grid.support.errors import UserError, UserTypeError


class ParticleGridVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """`gymnasium.make_vec("ParticleGrid/Group-v0", action="continuous", ...)`: each agent is one environment.

    **Autoreset mode: NEXT_STEP, exactly.** In that mode of Gymnasium, the step that ends an episode returns its last
    observation, its reward and the flag. The next step ignores the action and returns the first observation of the new
    episode, reward 0 and no flag. In ParticleGrid, an agent that respawns ignores its action, gets reward 0 and sees
    the first observation of its new episode, just like in that next step. Only its flag comes with the respawn, one
    step late for Gymnasium. But which agents respawn is known one step ahead (`ParticleGrid.due`), so the flag is
    returned there, with the last observation. Nothing else is changed. SAME_STEP would need the first observation of
    the new episode before it exists, and with DISABLED no agent would respawn by itself.

    So a learner bootstraps from the value of the observation that comes *with* the flag, and leaves out the step
    *after* it. One life in `lifespan` has no step at all. Its flag is set in two steps in a row, and the steps after
    both are left out. If that is an agent's first life, no step can set the flag, so `reset` does in `infos["due"]`,
    bool[num_envs]: the first step of these agents is left out too.

    Observations u8[num_envs, size], rewards f32[num_envs] and terminations bool[num_envs], which are never set, are
    ParticleGrid's own buffers, which the next step overwrites. Copy what you keep, or use copy=True. truncations
    bool[num_envs] are new in each step. Every 32 steps, infos hold `score`, `moved` and all else that ParticleGrid
    reports, f64[num_envs], with the same number for every agent.

    Args:
        num_envs: number of agents in all; 1, which `make_vec` passes by default, leaves it to `settings`.
        copy: return copies instead of buffers.
        settings: those of `ParticleGrid`, including `task`.

    Raises:
        UserError: if no such environment can be built.
    """

    metadata: dict[str, Any] = ParticleGrid.metadata | {"autoreset_mode": AutoresetMode.NEXT_STEP}
    __copy__ = deepcopy  # a copy that shared arrays would move the agents of both

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
        """Start all worlds, and return observations and infos as above.

        Raises:
            UserError: for an invalid seed, the option `reset_mask`, or options that are not a dict.
        """
        if not isinstance(options, dict | None):
            raise UserTypeError(f"options={options!r} are not a dict: give a dict, or leave them out.")
        if options and "reset_mask" in options:
            raise UserError(
                "options['reset_mask'] is not supported, because agents respawn by themselves: call reset() without it."
            )
        check_seed(seed)
        super().reset(seed=None if seed is None else int(seed))  # Gymnasium does not accept NumPy's integers
        observations, _ = self.native.reset(seed)
        return self._output(observations), self._masked({"due": self.native.due()})

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Make one step of all agents with actions [num_envs, 2]; see above, and `ParticleGrid.step`."""
        observations, rewards, terminals, _, reports = self.native.step(actions)
        infos = {name: np.full(self.num_envs, value) for report in reports for name, value in report.items()}
        buffers = self._output(observations), self._output(rewards), self._output(terminals)
        return *buffers, self.native.due(), self._masked(infos)

    def _masked(self, infos: dict[str, np.ndarray]) -> dict[str, Any]:
        """Add the masks that Gymnasium's wrappers need, which say that every info is for all agents."""
        return infos | {f"_{name}": np.ones(self.num_envs, bool) for name in infos}

    def _output(self, buffer: np.ndarray) -> np.ndarray:
        return buffer.copy() if self.copy else buffer

    def render(self) -> tuple[Any, ...] | None:
        """Return one picture of the first world, u8[H, W, 3] or text; None if it is shown in a window."""
        picture = self.native.render()
        return None if picture is None else (picture,)

    def close_extras(self, **_: Any) -> None:
        """Close the window, if there is one."""
        self.native.close()


def check_whole(name: str, value: Any) -> None:
    """Raise UserError unless `value` is a whole number."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise UserTypeError(f"{name}={value!r} is not a whole number.")


def agents_in_each(
    num_envs: int, worlds: int = World.worlds, agents: int | None = None, world: World | None = None, **_: Any
) -> int:
    """Return the agents of each world if there are num_envs in all.

    Raises:
        UserError: if that is not a whole number, or differs from `agents`.
    """
    if world is not None:
        raise UserError(f"num_envs={num_envs} and world= exclude each other: set agents in the World.")
    check_whole("worlds", worlds)
    each = num_envs // max(worlds, 1) if agents is None else agents
    if each * worlds != num_envs:
        asked = f"worlds={worlds}" if agents is None else f"worlds={worlds} times agents={agents}"
        raise UserError(f"num_envs={num_envs} does not agree with {asked}: leave one of them out.")
    return each
