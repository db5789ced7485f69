"""What the trainer needs of an environment, and how it steps one: by itself, or while another one is inferred."""

import weakref
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from typing import Any, Protocol

import numpy as np
import torch

from particle_grid.learn.policy import Policy, check_array


class Env(Protocol):
    """An environment of N agents that writes its buffers in place.

    observations u8[N, row], rewards f32[N], terminals and truncations bool[N] are the same arrays for good. An agent
    with truncations set did not act in that step: `particle_grid.learn.ppo` says what follows. The saved state
    includes the buffers. Actions are i32[N, A] or f32[N, A]; infos are dicts of floats, or none.
    """

    num_agents: int
    observations: np.ndarray
    rewards: np.ndarray
    terminals: np.ndarray
    truncations: np.ndarray

    def reset(self, seed: int | None = None) -> tuple[np.ndarray, list]: ...
    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list]: ...
    def state_dict(self) -> dict[str, np.ndarray]: ...
    def load_state_dict(self, saved: dict[str, np.ndarray]) -> None: ...


class Opponents(Protocol):
    """Who plays some of the agents in training; nothing is learnt from those.

    agents: which ones, bool[N]. act(moment) gives actions of all N agents for the present observations; moment is
    another whole number in each step, the number of agent-steps learnt from and a few, and the only source of what is
    random in them. The saved state is of what torch.load takes with weights only.
    """

    agents: np.ndarray

    def act(self, moment: int) -> np.ndarray: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, saved: dict[str, Any]) -> None: ...


def no_opponents(env: Any) -> None:
    """Every agent learns."""


def environments(env: Env | Sequence[Env], policy: Policy) -> list[Env]:
    """One environment or several, as a list. Raises ValueError for those that a policy cannot learn in side by side."""
    envs = list(env) if isinstance(env, Sequence) else [env]
    if not envs or len({id(env) for env in envs}) < len(envs):
        raise ValueError(f"env={env} cannot be: give one environment or several, each of them once.")
    for each in envs:
        n = each.num_agents
        check_array("observations", each.observations, np.uint8, (n, policy.row))
        check_array("rewards", each.rewards, np.float32, (n,))
        check_array("terminals", each.terminals, np.bool_, (n,))
        check_array("truncations", each.truncations, np.bool_, (n,))
        if not each.observations.flags.carray:
            raise ValueError("observations are read-only or not contiguous: let the environment write an array whole.")
    return envs


class EnvSplit:
    """An environment whose agents are the rows `agents` of the trainer's buffers. obs and outcome (rewards, terminals,
    truncations) are views of what it writes, and belong to it between `start` and `finish`."""

    def __init__(
        self, env: Env, opponents: Opponents | None, first: int, pool: Executor | None, device: torch.device
    ) -> None:
        if device.type == "cuda":  # page-locked while the split lives, so that copies to the GPU need not be waited for
            runtime, address = torch.cuda.cudart(), env.observations.ctypes.data
            torch.cuda.check_error(runtime.cudaHostRegister(address, env.observations.nbytes, 0))
            weakref.finalize(self, runtime.cudaHostUnregister, address)
        self.env, self.opponents, self.pool = env, opponents, pool
        self.agents = slice(first, first + env.num_agents)
        self.obs = torch.from_numpy(env.observations)
        self.outcome = [torch.from_numpy(x) for x in (env.rewards, env.terminals, env.truncations)]
        self.learning = np.ones(env.num_agents, bool) if opponents is None else ~opponents.agents

    def start(self, actions: np.ndarray, moment: int) -> None:
        """Begins a step: in the pool, if there is one, and at once if not."""
        if self.opponents:
            actions = np.where(self.learning[:, None], actions, self.opponents.act(moment))
        self.step: Future | tuple = self.pool.submit(self.env.step, actions) if self.pool else self.env.step(actions)

    def finish(self) -> list[dict[str, float]]:
        """Waits until the step is done, and returns its infos."""
        return (self.step.result() if isinstance(self.step, Future) else self.step)[-1]
