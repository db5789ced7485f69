"""Who plays some of the agents while others learn: `particle_grid.learn.lane.Opponents` of an environment."""

import math

import numpy as np

from particle_grid.env import ParticleGrid


class ScriptedOpponents:
    """The script on one side in a share of the worlds, in half of these on the first side.

    Raises ValueError where there are no two sides, or too few worlds.
    """

    def __init__(self, env: ParticleGrid, share: float) -> None:
        if env.task.sides != 2:
            raise ValueError(
                f"trainer.scripted_opponents={share} cannot be: task {env.task_name} has no two sides; leave it at 0."
            )
        half = round(share * env.world.worlds / 2)
        if not half:
            raise ValueError(
                f"trainer.scripted_opponents={share} of world.worlds={env.world.worlds} is less than one world for "
                f"each side: give at least {math.ceil(2 / share)} worlds, or leave it at 0."
            )
        worlds = np.arange(env.num_agents) // env.world.agents
        first, second = worlds < half, (worlds >= half) & (worlds < 2 * half)
        self.agents, self._env = (first & env.side(0)) | (second & env.side(1)), env

    def act(self, moment: int) -> np.ndarray:
        return self._env.scripted_actions(np.array([self._env.seed + moment], np.uint64))
