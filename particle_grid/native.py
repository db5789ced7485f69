"""The base class of environments: PufferLib's own, or its equal where PufferLib cannot be imported.

Two distributions own `import pufferlib`: `pufferlib-core`, which this package depends on, and `pufferlib`. Installed
together, each overwrites files of the other.
"""

import warnings
from importlib import metadata
from typing import Any

import numpy as np
from gymnasium.spaces import Box, MultiDiscrete

OWNERS = ("pufferlib", "pufferlib-core")
REMEDY = "run pip uninstall pufferlib pufferlib-core, and install pufferlib-core==3.0.7."
CLASH = f"pufferlib and pufferlib-core are both installed and overwrite each other's files: {REMEDY}"
OTHER = f"The PufferLib that is installed has another interface, so pufferlib.vector will not work: {REMEDY}"


class NativeEnv:
    """What `pufferlib.PufferEnv` 3.0 does for a native environment.

    A subclass sets single_observation_space, single_action_space and num_agents before it calls `__init__`.

    Args:
        buf: the arrays observations, rewards, terminals, truncations, masks and actions.
    """

    single_observation_space: Box
    single_action_space: Box | MultiDiscrete
    num_agents: int
    infos: list[dict[str, float]]

    def __init__(self, buf: dict[str, np.ndarray]) -> None:
        self.observations = buf["observations"]
        self.rewards = buf["rewards"]
        self.terminals = buf["terminals"]
        self.truncations = buf["truncations"]
        self.masks = buf["masks"]
        self.actions = buf["actions"]
        self.observation_space = joint_space(self.single_observation_space, self.num_agents)
        self.action_space = joint_space(self.single_action_space, self.num_agents)
        self.agent_ids = np.arange(self.num_agents)

    @property
    def agent_per_batch(self) -> int:
        """Return the number of agents."""
        return self.num_agents

    @property
    def emulated(self) -> bool:
        """Return False: native environments are not emulated."""
        return False

    @property
    def done(self) -> bool:
        """Return False: native environments reset by themselves."""
        return False

    @property
    def driver_env(self) -> "NativeEnv":
        """Return the environment, for vectorisations."""
        return self

    def reset(self, seed: int | None = None) -> Any:
        """Start all worlds."""
        raise NotImplementedError

    def step(self, actions: np.ndarray) -> Any:
        """Make one step of all agents."""
        raise NotImplementedError

    def close(self) -> None:
        """Release what the environment holds."""
        raise NotImplementedError

    def async_reset(self, seed: int | None = None) -> None:
        """Start all worlds; `recv` returns the results."""
        _, self.infos = self.reset(seed)

    def send(self, actions: np.ndarray) -> None:
        """Make one step of all agents; `recv` returns the results."""
        _, _, _, _, self.infos = self.step(actions)

    def recv(self) -> tuple[Any, ...]:
        """Return the results of `async_reset` or `send`."""
        buffers = self.observations, self.rewards, self.terminals, self.truncations
        return *buffers, self.infos, self.agent_ids, self.masks


def joint_space(space: Box | MultiDiscrete, n: int) -> Box:
    """Return the space of n agents that share a space. As in PufferLib, it is a Box for whole numbers, too."""
    low: Any = np.zeros_like(space.nvec) if isinstance(space, MultiDiscrete) else space.low
    high: Any = space.nvec - 1 if isinstance(space, MultiDiscrete) else space.high
    kind: Any = space.dtype
    return Box(np.stack([low] * n), np.stack([high] * n), dtype=kind)


def base_class() -> Any:
    """Return `pufferlib.PufferEnv`, or `NativeEnv` if it cannot be imported. Warn if two distributions clash."""
    if len({name for name in OWNERS if installed(name)}) > 1:
        warnings.warn(CLASH, stacklevel=2)
    try:
        from pufferlib import PufferEnv
    except (ImportError, AttributeError):  # missing, or a mixture of two distributions
        return NativeEnv
    if fits(PufferEnv):
        return PufferEnv
    warnings.warn(OTHER, stacklevel=2)
    return NativeEnv


def fits(base: Any) -> bool:
    """Return whether a base class takes the buffers that environments have."""
    env = base.__new__(base)
    env.num_agents = 1
    env.single_observation_space = Box(0, 255, (2,), np.uint8)
    env.single_action_space = Box(-1.0, 1.0, (2,), np.float32)
    names = ("observations", "rewards", "terminals", "truncations", "masks", "actions")
    try:
        env.__init__({name: np.zeros((1, 2)) for name in names})
    except Exception:
        return False
    return True


def installed(distribution: str) -> bool:
    """Return whether a distribution is installed."""
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
