"""Opponents in training: the task's script, or earlier versions of the policy, play some of the agents."""

import copy
import math
from typing import Any

import numpy as np

from particle_grid.env import ParticleGrid
from particle_grid.learn.checkpoint import check_memory, check_weights
from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.player import Player
from particle_grid.learn.policy import Policy
from particle_grid.support.errors import UserError

SELVES = 32  # copies frozen until total_steps, evenly spaced
AT_PLAY = 4  # copies that play at a time, each for a part of the agents


class TeamOpponents:
    """Opponents that play one team in some of the worlds: the first team in half of those, the second in the others.

    The script plays in a share `scripted_opponents` of all worlds, and earlier versions of the policy in a share
    `opponent_pool`. The environment reports only the scores of the other agents, which learn.

    Raises:
        UserError: if the task does not have two teams, or there are too few worlds for a share.
    """

    def __init__(self, env: ParticleGrid, policy: Policy, settings: TrainerConfig) -> None:
        self._env = env
        self._scripted, past = opponent_agents(env, settings)
        self.agents = self._scripted | past
        env.reported = ~self.agents
        self._past = PastSelves(env, policy, past, settings) if past.any() else None

    def act(self, moment: int) -> np.ndarray:
        """Return actions for all agents, of which only those of opponents are meaningful."""
        if self._scripted.any():
            actions = self._env.scripted_actions(np.array([self._env.seed + moment], np.uint64))
        else:
            actions = np.zeros_like(self._env.actions)
        if self._past:
            self._past.act(moment, actions)
        return actions

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run continues from."""
        return self._past.state_dict() if self._past else {}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Continue from a `state_dict`. Raise UserError for that of other opponents."""
        if bool(saved) != bool(self._past):
            raise UserError("trainer.opponent_pool cannot be switched on or off in a resumed run: leave it as it was.")
        if self._past:
            self._past.load_state_dict(saved)


def opponent_agents(env: ParticleGrid, settings: TrainerConfig) -> list[np.ndarray]:
    """Return which agents the script plays, and which ones earlier versions of the policy, bool[N] each.

    Raises:
        UserError: as `TeamOpponents`.
    """
    taken = 0
    masks = []
    for key in ("scripted_opponents", "opponent_pool"):
        mask, taken = _agents(env, key, getattr(settings, key), taken)
        masks.append(mask)
    return masks


def check_two_teams(env: ParticleGrid, key: str, value: float) -> None:
    """Raise UserError for a setting of the trainer about two teams in a task with one, unless it is 0."""
    if value and env.task.teams < 2:
        raise UserError(f"trainer.{key}={value} is invalid: task {env.task_name} has only one team; leave it at 0.")


def _agents(env: ParticleGrid, key: str, share: float, taken: int) -> tuple[np.ndarray, int]:
    """Return which agents are opponents in a share of the worlds, bool[N], and how many worlds are taken then."""
    if not share:
        return np.zeros(env.num_agents, bool), taken
    check_two_teams(env, key, share)
    half = min(round(share * env.world.worlds / 2), (env.world.worlds - taken) // 2)
    if not half:
        raise UserError(
            f"trainer.{key}={share} of world.worlds={env.world.worlds} is less than one world for each team: give "
            f"more worlds, or leave it at 0."
        )
    worlds = np.arange(env.num_agents) // env.world.agents - taken
    first, second = (worlds >= 0) & (worlds < half), (worlds >= half) & (worlds < 2 * half)
    return (first & env.team(0)) | (second & env.team(1)), taken + 2 * half


class PastSelves:
    """Frozen copies of a policy as it learns (fictitious self-play: Heinrich et al. 2015).

    Those that play are a uniform sample of all so far, kept by reservoir sampling (Vitter 1985).
    """

    def __init__(self, env: ParticleGrid, policy: Policy, mask: np.ndarray, settings: TrainerConfig) -> None:
        self._env = env
        self._policy = policy
        self._seed = settings.seed
        self._every = settings.total_steps / SELVES
        self._frozen = 0
        # The last rollout may start just before total_steps, and freezes until its end.
        self._most = SELVES + math.ceil(settings.rollout_length / self._every)
        self._parts = [part for part in np.array_split(np.flatnonzero(mask), AT_PLAY) if len(part)]
        self._players = [self._freeze(len(part)) for part in self._parts]

    def _freeze(self, agents: int) -> Player:
        return Player(copy.deepcopy(self._policy), agents, self._seed)

    def act(self, moment: int, actions: np.ndarray) -> None:
        """Write the actions of its agents."""
        self.grow(moment)
        env, starts = self._env, self._env.terminals | self._env.truncations
        for k, (part, player) in enumerate(zip(self._parts, self._players, strict=True)):
            player.generator.manual_seed(int(np.random.SeedSequence([self._seed, moment, k]).generate_state(1)[0]))
            actions[part] = player(env.observations[part], starts[part])

    def grow(self, moment: int) -> None:
        """Freeze the policy if it is due."""
        while moment >= self._frozen * self._every:
            place = self._frozen
            if self._frozen >= len(self._parts):
                place = int(np.random.default_rng([self._seed, self._frozen]).integers(self._frozen + 1))
            if place < len(self._parts):
                self._players[place] = self._freeze(len(self._parts[place]))
            self._frozen += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the frozen copies, and how many there were."""
        selves = [{"policy": player.policy.state_dict(), "state": player.state} for player in self._players]
        return {"frozen": self._frozen, "selves": selves}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Continue from a `state_dict`. Raise UserError for that of another run."""
        if saved["frozen"] > self._most or len(saved["selves"]) != len(self._players):
            raise UserError("The checkpoint has opponents of another run: use the settings it was saved with.")
        for player, one in zip(self._players, saved["selves"], strict=True):
            check_weights(player.policy, one["policy"])
            check_memory(one["state"], player.state)
        self._frozen = saved["frozen"]
        for player, one in zip(self._players, saved["selves"], strict=True):
            player.policy.load_state_dict(one["policy"])
            player.state = tuple(x.to(player.device) for x in one["state"])
