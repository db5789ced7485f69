"""ParticleGrid as a TorchRL environment."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from particle_grid.adapters import check_episodes, with_lifetime
from particle_grid.env import ParticleGrid
from particle_grid.sim.rng import check_seed
from particle_grid.sim.task import team_names
from particle_grid.sim.world import World
from particle_grid.support.errors import UserError
from particle_grid.support.optional import load

_NEEDED = "torchrl", "The adapter for TorchRL"  # the extra, and what needs it
TensorDict: Any = load("tensordict", *_NEEDED).TensorDict
EnvBase: Any = load("torchrl.envs", *_NEEDED).EnvBase
specs: Any = load("torchrl.data", *_NEEDED)


class ParticleGridEnv(EnvBase):
    """A batch of worlds, `batch_size=[worlds]`. Agents are grouped by team, n agents to a group.

    The group is "agents", or in tasks of two teams one for each, such as "predator" and "prey"; `group_map` lists them.
    Under the name of each group are

    - `observation` u8[worlds, n, size],
    - `mask` bool[worlds, n]: whether the agent's next action counts,
    - `action`: i64[worlds, n, 2] of 0, 1, 2, or f32[worlds, n, 2] in [-1, 1], depending on the action form,
    - `reward` f32[worlds, n, 1],
    - `done`, `truncated` and `terminated` bool[worlds, n, 1]; the last is never set.

    **Worlds** end as TorchRL expects. After `max_episode_steps - 1` steps, `done` and `truncated` bool[worlds, 1] are
    set with the last observations, and TorchRL resets these worlds. Any other world may be reset as well, with
    `_reset`. By default agents do not respawn (`lifespan=0`), and this is all there is to know.

    **Agents that respawn** (`lifespan` > 0) do so within a step, which ignores their action and gives them no reward.
    TorchRL's `_reset` is no place for it, because their first observation does not exist before the others have moved.
    So an agent is truncated with the last observation of its life, as with Gymnasium's NEXT_STEP, and its `mask` is
    False: the next step leads to its first observation, and learners leave that step out. One life in `lifespan` has no
    step at all; it has no flag either, but the mask covers it. Agents that are done do not make their world done.

    World k is `ParticleGrid(worlds=1, seed=seed + k)`, as in PufferLib's `Serial`: the same seed and actions give the
    same trajectories. All tensors are new in each step.

    Args:
        worlds: the number of worlds, unless `settings` has a `world`.
        seed: of the first world.
        device: where tensors are; the simulation runs on the CPU.
        settings: those of `ParticleGrid`. Unless they have a `world`, `lifespan` (0: never) and `max_episode_steps`
            (0: never) default to `particle_grid.adapters.LIFETIME`.

    Attributes:
        natives: the `ParticleGrid` of each world.
        group_map: the names of the agents of each group.

    Raises:
        UserError: if no such environment can be built.
    """

    def __init__(
        self,
        *,
        worlds: int = World.worlds,
        seed: int | None = 0,
        device: torch.device | str | None = None,
        **settings: Any,
    ) -> None:
        check_seed(seed)
        check_device(device)
        count = World(worlds=worlds).worlds  # which checks it
        settings = with_lifetime(settings)
        world = settings.get("world")
        if isinstance(world, World):
            settings |= {"world": replace(world, worlds=1), "worlds": worlds}  # ParticleGrid refuses both together
            count = world.worlds
        self.natives = [ParticleGrid(**settings, seed=(seed or 0) + k) for k in range(count)]
        check_episodes(self.natives[0].world)
        super().__init__(device=device, batch_size=[count])
        self._seeds: list[int | None] = [None] * count  # seed of the next reset of each world
        self._members = groups(self.natives[0])
        self._places = np.argsort(np.concatenate([*self._members.values()]))  # where agents are in the joined groups
        self.group_map = {name: [f"{name}_{k}" for k in range(len(who))] for name, who in self._members.items()}
        self._make_specs(device)

    def _make_specs(self, device: torch.device | str | None) -> None:
        """Set the specs of everything that the class describes."""
        observations = specs.Composite(shape=self.batch_size, device=device)
        actions = observations.clone()
        rewards = observations.clone()
        ends = specs.Composite(_flags(*self.batch_size, 1), shape=self.batch_size, device=device)
        size = self.natives[0].world.observation_size
        for name, members in self._members.items():
            shape = *self.batch_size, len(members)
            seen = specs.Bounded(0, 255, (*shape, size), dtype=torch.uint8)
            mask = specs.Categorical(2, shape, dtype=torch.bool)
            observations[name] = specs.Composite(observation=seen, mask=mask, shape=shape)
            actions[name] = specs.Composite(action=_action(self.natives[0].discrete, shape), shape=shape)
            rewards[name] = specs.Composite(reward=specs.Unbounded((*shape, 1)), shape=shape)
            ends[name] = specs.Composite(_flags(*shape, 1), shape=shape)
        self.observation_spec = observations
        self.action_spec = actions
        self.reward_spec = rewards
        self.done_spec = ends

    def _set_seed(self, seed: int | None) -> None:
        """Let the next reset of world k use seed + k; None lets its generator continue."""
        check_seed(seed)
        self._seeds = [None if seed is None else seed + k for k in range(len(self.natives))]

    def _reset(self, tensordict: Any = None, **_: Any) -> Any:
        """Start the worlds marked in `_reset`, or all of them, and return the observations of all."""
        chosen = None if tensordict is None else tensordict.get("_reset", None)
        chosen = np.ones(len(self.natives), bool) if chosen is None else chosen.cpu().numpy().reshape(-1)
        for k in np.flatnonzero(chosen).tolist():
            self.natives[k].reset(self._seeds[k])
            self._seeds[k] = None
        return self._tensordict(self._seen())

    def _step(self, tensordict: Any) -> Any:
        """Make one step of all worlds."""
        if missing := [name for name in self._members if (name, "action") not in tensordict.keys(True)]:
            raise UserError(
                f"The tensordict has no actions ({missing[0]!r}, 'action'): write them before step(), as a policy or "
                f"rand_action() does."
            )
        given = [tensordict[name, "action"].cpu().numpy() for name in self._members]
        actions = np.concatenate(given, axis=1)[:, self._places]  # [worlds, agents, 2]
        for native, action in zip(self.natives, actions, strict=True):
            native.step(action)
        last = self.natives[0].world.max_episode_steps - 1
        over = np.array([native.state.tick == last for native in self.natives])  # [worlds, 1]
        respawned = np.stack([native.truncations for native in self.natives])
        values = self._seen()
        values["reward"] = np.stack([native.rewards for native in self.natives])[..., None]
        values |= _ends((~values["mask"] & ~respawned | over)[..., None])
        return self._tensordict(values).update({key: torch.from_numpy(flags) for key, flags in _ends(over).items()})

    def _seen(self) -> dict[str, np.ndarray]:
        """Return the observations of all agents, u8[worlds, agents, size], and whether their next action counts."""
        mask = ~np.stack([native.due() for native in self.natives])
        return {"observation": np.stack([native.observations for native in self.natives]), "mask": mask}

    def _tensordict(self, values: dict[str, np.ndarray]) -> Any:
        """Return a copy of values [worlds, agents, ...] by group."""
        result = TensorDict(batch_size=self.batch_size, device=self.device)
        for name, members in self._members.items():
            shares = {key: torch.from_numpy(value[:, members]) for key, value in values.items()}
            result[name] = TensorDict(shares, batch_size=[*self.batch_size, len(members)], device=self.device)
        return result

    def render(self) -> Any:
        """Return a picture of the first world, u8[H, W, 3] or text; None if it is shown in a window."""
        return self.natives[0].render()

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Close the windows, if there are any."""
        super().close(raise_if_closed=raise_if_closed)
        for native in self.natives:
            native.close()


def check_device(device: torch.device | str | None) -> None:
    """Raise UserError unless tensors can be on a device, of which None is torch's default."""
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, TypeError) as error:
        raise UserError(
            f"device={device!r} cannot hold tensors ({error}): give cpu or cuda, or leave it out."
        ) from error


def _flags(*shape: int) -> dict[str, Any]:
    """Return the specs of the three flags that tell the end of an episode."""
    return {key: specs.Categorical(2, shape, dtype=torch.bool) for key in ("done", "truncated", "terminated")}


def _ends(truncated: np.ndarray) -> dict[str, np.ndarray]:
    """Return the flags of episodes of which these are truncated, and none terminated."""
    return {"done": truncated.copy(), "truncated": truncated, "terminated": np.zeros_like(truncated)}


def _action(discrete: bool, shape: tuple[int, ...]) -> Any:
    """Return the spec of actions [*shape, 2]."""
    if discrete:
        return specs.MultiCategorical([3, 3], (*shape, 2), dtype=torch.int64)
    return specs.Bounded(-1.0, 1.0, (*shape, 2), dtype=torch.float32)


def groups(native: ParticleGrid) -> dict[str, np.ndarray]:
    """Return the name of each team, and the numbers of its agents, i64[n]."""
    names = [name.replace(" ", "_") for name in team_names(native.task)] or ["agents"]
    return {name: np.flatnonzero(native.team(k)) for k, name in enumerate(names)}
