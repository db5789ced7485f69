"""ParticleGrid as a Gymnasium vector environment."""

from copy import deepcopy
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from particle_grid.adapters import environment_id, show_in_window
from particle_grid.env import ParticleGrid
from particle_grid.sim import tasks
from particle_grid.sim.rng import check_seed
from particle_grid.sim.world import World
from particle_grid.support import registry
from particle_grid.support.errors import UserError, UserTypeError


class ParticleGridVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """`gymnasium.make_vec("ParticleGrid/Group-v0", num_envs=4096, ...)`: each agent is one environment.

    **Autoreset mode: NEXT_STEP, exactly.** In that mode of Gymnasium, the step that ends an episode returns its last
    observation, its reward and the flag. The next step ignores the action and returns the first observation of the new
    episode, reward 0 and no flag. In ParticleGrid, an agent that respawns ignores its action, gets reward 0 and sees
    the first observation of its new episode, just like in that next step. Only its flag comes with the respawn, one
    step late for Gymnasium. But which agents respawn is known one step ahead (`ParticleGrid.due`), so the flag is
    returned there, with the last observation. Nothing else is changed. SAME_STEP would need the first observation of
    the new episode before it exists, and with DISABLED no agent would respawn by itself.

    So a learner bootstraps from the value of the observation that comes *with* the flag, and leaves out the step
    *after* it. One life in `lifespan` has no step at all: the agent respawns in two steps in a row. Such a life is not
    an episode, so it has no flag, and the next episode begins with a step that has no effect. `infos["due"]`,
    bool[num_envs], from `reset` and each step, tells which agents ignore their next action, for either reason.

    Observations u8[num_envs, size], rewards f32[num_envs], terminations bool[num_envs], which are never set, and
    truncations bool[num_envs] are new in each step. With copy=False, the first three are ParticleGrid's own buffers,
    which the next step overwrites. Every 32 steps, infos hold `score`, `moved` and all else that ParticleGrid reports,
    f64[num_envs], with the same number for every agent.

    With `render_mode="human"`, each reset and each step show the first world in a window, as in Gymnasium.

    Args:
        num_envs: number of agents in all worlds; None, which `make_vec` never passes, leaves it to `settings`.
        copy: return copies; False returns buffers, which is faster.
        settings: those of `ParticleGrid`, including `task`. With `num_envs`, leave out `agents`: each of the `worlds`
            gets an equal share. Settings that say how many agents there are must agree with `num_envs`.

    Raises:
        UserError: if no such environment can be built.
    """

    metadata: dict[str, Any] = ParticleGrid.metadata | {"autoreset_mode": AutoresetMode.NEXT_STEP}
    __copy__ = deepcopy  # a copy that shared arrays would move the agents of both
    closed = True  # until it is built: Gymnasium 1.1 closes in __del__ also what could not be

    def __init__(self, num_envs: int | None = None, *, copy: bool = True, **settings: Any) -> None:
        if num_envs is not None:
            settings = with_agents(num_envs, settings)
        self.native = ParticleGrid(**settings)
        self.copy = copy
        self.num_envs = self.native.num_agents
        self.render_mode = self.native.render_mode
        self.single_observation_space = self.native.single_observation_space
        self.single_action_space = self.native.single_action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.closed = False

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
        show_in_window(self.native)
        return self._output(observations), self._masked({"due": self.native.due()})

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Make one step of all agents with actions [num_envs, 2]; see above, and `ParticleGrid.step`."""
        observations, rewards, terminals, respawned, reports = self.native.step(actions)
        show_in_window(self.native)
        due = self.native.due()
        infos = {name: np.full(self.num_envs, value) for report in reports for name, value in report.items()}
        buffers = self._output(observations), self._output(rewards), self._output(terminals)
        return *buffers, due & ~respawned, self._masked(infos | {"due": due})

    def _masked(self, infos: dict[str, np.ndarray]) -> dict[str, Any]:
        """Add the masks that Gymnasium's wrappers need, which say that every info is for all agents."""
        return infos | {f"_{name}": np.ones(self.num_envs, bool) for name in infos}

    def _output(self, buffer: np.ndarray) -> np.ndarray:
        return buffer.copy() if self.copy else buffer

    def render(self) -> tuple[Any, ...] | None:
        """Return a picture of the first world, u8[H, W, 3] or text; None if it is shown in a window.

        Wrappers of Gymnasium expect one picture for each environment, so it is in the tuple num_envs times.
        """
        picture = self.native.render()
        return None if picture is None else (picture,) * self.num_envs

    def close_extras(self, **_: Any) -> None:
        """Close the window, if there is one."""
        self.native.close()


def make_registered(registered: str, **settings: Any) -> ParticleGridVectorEnv:
    """Return the environment of a task that is registered with Gymnasium; settings: of `ParticleGridVectorEnv`.

    Raises:
        UserError: if no such environment can be built, or the settings name another task.
    """
    task = settings.pop("task", registered)
    if task != registered:
        raise UserError(f"task={task!r} is not the task of {environment_id(registered)}: {_way_to_make(task)}.")
    return ParticleGridVectorEnv(task=registered, **settings)


def _way_to_make(task: Any) -> str:
    """Return how to make an environment of a task, or raise UserError for a name that no task has."""
    if not isinstance(task, str) or registry.is_place(task):
        return "build ParticleGridVectorEnv(task=...) for a task that has no id"
    tasks.load(task)  # which raises
    return f"make {environment_id(task)}"


def check_count(name: str, value: Any) -> None:
    """Raise UserError unless `value` is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise UserTypeError(f"{name}={value!r} is not a whole number.")
    if value < 1:
        raise UserError(f"{name}={value} is too small: it must be at least 1.")


def with_agents(num_envs: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings with `num_envs` agents in all, the same number in each world.

    Raises:
        UserError: if that is not possible, or if the settings ask for another number of agents.
    """
    check_count("num_envs", num_envs)
    world = settings.get("world")
    if isinstance(world, World):
        in_all = world.worlds * world.agents
        if in_all != num_envs:
            raise UserError(f"num_envs={num_envs} is not the number of agents in world=, which is {in_all}: pass that.")
        return settings
    worlds = settings.get("worlds", World.worlds)
    check_count("worlds", worlds)
    agents = settings.get("agents", num_envs // worlds)
    check_count("agents", agents)
    if worlds * agents == num_envs:
        return settings | {"agents": agents}
    if "agents" in settings:
        raise UserError(
            f"num_envs={num_envs}, the number of agents in all, does not agree with worlds={worlds} times "
            f"agents={agents}: leave out agents, and pass num_envs={worlds * agents} if you want that many."
        )
    raise UserError(f"num_envs={num_envs} agents cannot be shared out equally among worlds={worlds}: pass a multiple.")
