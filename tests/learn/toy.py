"""Small environments with the buffers and truncations of the real one."""

from collections.abc import Callable

import numpy as np
from gymnasium.spaces import Box, MultiDiscrete, Space

DISCRETE = MultiDiscrete([3, 3], dtype=np.int32)
CONTINUOUS = Box(-1.0, 1.0, (2,), np.float32)
SPACES = {"discrete": DISCRETE, "continuous": CONTINUOUS}
Reward = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Toy:
    """N agents that see random cells.

    Args:
        n: the number of agents.
        space: the action space of each agent.
        vision: the number of cells that agents see on each side.
        ends: the probability that an agent's episode ends in a step.
        terminal: whether episodes end by a terminal step, instead of a truncated step in which the agent does not act.
        period: the number of decisions after which episodes end, instead of ending at random.
        reward: a function that returns f32[N] for observations and actions; 0 by default.
    """

    def __init__(
        self,
        n: int = 8,
        space: Space = DISCRETE,
        vision: int = 1,
        ends: float = 0.0,
        terminal: bool = False,
        period: int = 0,
        reward: Reward | None = None,
    ) -> None:
        self.num_agents = n
        self.single_action_space = space
        self.window = (2 * vision + 1) ** 2
        self.ends = ends
        self.terminal = terminal
        self.period = period
        self.reward = reward
        self.single_observation_space = Box(0, 255, (self.window + 7,), np.uint8)
        self.observations = np.zeros((n, self.window + 7), np.uint8)
        self.rewards = np.zeros(n, np.float32)
        self.terminals = np.zeros(n, bool)
        self.truncations = np.zeros(n, bool)
        self.age = np.zeros(n, np.int64)
        self.ticks = 0

    def _observe(self) -> None:
        self.observations[:, : self.window] = self.rng.integers(0, 7, (self.num_agents, self.window))
        self.observations[:, self.window :] = self.rng.integers(0, 256, (self.num_agents, 7))

    def reset(self, seed: int | None = None) -> tuple[np.ndarray, list]:
        self.rng = np.random.Generator(np.random.PCG64(seed))
        self.age[:] = np.arange(self.num_agents) % (self.period or 1)  # agents at all ages
        self._observe()
        return self.observations, []

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list]:
        assert actions.shape == (self.num_agents, 2)
        assert actions.dtype == self.single_action_space.dtype
        self.ticks += 1
        self.rewards[:] = 0 if self.reward is None else self.reward(self.observations, actions)
        over = self.age >= self.period - self.terminal if self.period else self.rng.random(self.num_agents) < self.ends
        self.terminals[:] = over & self.terminal
        self.truncations[:] = over & (not self.terminal)
        self.rewards[self.truncations] = 0
        self.age += 1
        self.age[over] = 0
        self._observe()
        infos = [{"score": float(self.rewards.mean()), "moved": 0.5}] if self.ticks % 4 == 0 else []
        return self.observations, self.rewards, self.terminals, self.truncations, infos

    def state_dict(self) -> dict[str, np.ndarray]:
        words = self.rng.bit_generator.state["state"]
        parts = [x >> (64 * k) & (2**64 - 1) for x in (words["state"], words["inc"]) for k in (0, 1)]
        state = {"rng": np.array(parts, np.uint64), "ticks": np.array(self.ticks)}
        return state | {
            k: getattr(self, k).copy() for k in ("observations", "rewards", "terminals", "truncations", "age")
        }

    def load_state_dict(self, saved: dict[str, np.ndarray]) -> None:
        a, b, c, d = map(int, saved["rng"])
        self.rng = np.random.Generator(np.random.PCG64())
        self.rng.bit_generator.state |= {
            "state": {"state": b << 64 | a, "inc": d << 64 | c},
            "has_uint32": 0,
            "uinteger": 0,
        }
        self.ticks = int(saved["ticks"])
        for k in ("observations", "rewards", "terminals", "truncations", "age"):
            getattr(self, k)[:] = saved[k]
