"""Training loops of other libraries in our environment, with the network of `policy=conv_lstm` in plain torch.

`clean_loop` follows CleanRL's recurrent PPO: one function, torch's own LSTM stepped with episode masks, distribution
objects, and minibatches of whole sequences. `recurrent_ppo` is the unchanged RecurrentPPO of sb3-contrib, given the
same layers through its options. Both return a function that runs one iteration.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical, Normal

from particle_grid.env import ParticleGrid
from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.policy import CHANNELS, FEATURES, ConvEncoder


class Eyes(nn.Module):
    """The layers of ConvLSTM before its LSTM, from observations [B, 128] of any dtype to f32[B, hidden]."""

    def __init__(self, side: int, hidden: int) -> None:
        super().__init__()
        self.cells = side * side
        self.encoder = ConvEncoder(side)
        self.linear = nn.Linear(CHANNELS + FEATURES, hidden)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        """Return the encoded observations."""
        cells = nn.functional.one_hot(obs[:, : self.cells].long(), 7).float()
        return self.linear(torch.cat([self.encoder(cells), obs[:, self.cells :] / 255], 1))


class Agent(nn.Module):
    """The policy in the style of CleanRL."""

    def __init__(self, env: ParticleGrid, hidden: int) -> None:
        super().__init__()
        self.discrete = env.discrete
        self.eyes = Eyes(2 * env.vision + 1, hidden)
        self.lstm = nn.LSTM(hidden, hidden)
        self.actor = nn.Linear(hidden, 6 if env.discrete else 2)
        self.critic = nn.Linear(hidden, 1)
        self.log_std = nn.Parameter(torch.zeros(2))

    def forward(self, obs: torch.Tensor, done: torch.Tensor, state: tuple, action: torch.Tensor | None = None) -> tuple:
        """Return action, log-probability, entropy, value and state for obs [T, B, 128] and done [T, B]."""
        x = self.eyes(obs.flatten(0, 1)).unflatten(0, obs.shape[:2])  # [T * B, 128] -> [T, B, hidden]
        hidden = []
        for x_t, keep in zip(x, (1.0 - done.float()).unsqueeze(-1), strict=True):
            h, state = self.lstm(x_t[None], (keep * state[0], keep * state[1]))
            hidden.append(h)
        h = torch.cat(hidden)
        out = self.actor(h)
        if self.discrete:
            policy: Any = Categorical(logits=out.unflatten(-1, (2, 3)))
        else:
            policy = Normal(out, self.log_std.exp())
        action = policy.sample() if action is None else action
        return action, policy.log_prob(action).sum(-1), policy.entropy().sum(-1), self.critic(h).squeeze(-1), state


class CleanLoop:
    """A loop that collects rollouts and learns from them in the style of CleanRL."""

    def __init__(self, env: ParticleGrid, config: TrainerConfig, hidden: int) -> None:
        self.env = env
        self.config = config
        self.agent = Agent(env, hidden)
        self.adam = torch.optim.Adam(self.agent.parameters(), lr=config.learning_rate, eps=config.adam_eps)
        env.reset(0)
        n = env.num_agents
        self.state = (torch.zeros(1, n, hidden), torch.zeros(1, n, hidden))
        self.done = torch.ones(n)

    def iterate(self) -> None:
        """Run one iteration."""
        first = self.state
        rollout, last = self.collect()
        rollout["advantages"] = self.advantages(rollout, last)
        rollout["returns"] = rollout["advantages"] + rollout["values"]
        size = self.config.minibatch // self.config.rollout_length
        for agents in torch.randperm(self.env.num_agents).split(size):
            state = (first[0][:, agents], first[1][:, agents])
            self.learn({name: x[:, agents] for name, x in rollout.items()}, state)

    @torch.no_grad()
    def collect(self) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Return a rollout and the values after it."""
        rows = []
        for _ in range(self.config.rollout_length):
            row = {"obs": torch.from_numpy(self.env.observations.copy()), "dones": self.done}
            action, logp, _, value, self.state = self.agent(row["obs"][None], self.done[None], self.state)
            self.env.step(action[0].numpy().astype(self.env.actions.dtype))
            row |= {"actions": action[0], "logps": logp[0], "values": value[0]}
            rows.append(row | {"rewards": torch.from_numpy(self.env.rewards.copy())})
            self.done = torch.from_numpy(self.env.truncations.copy()).float()
        last = self.agent(torch.from_numpy(self.env.observations.copy())[None], self.done[None], self.state)[3][0]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}, last

    def advantages(self, rollout: dict[str, torch.Tensor], last: torch.Tensor) -> torch.Tensor:
        """Return generalised advantage estimates."""
        result = torch.zeros_like(rollout["rewards"])
        gae = torch.zeros_like(last)
        dones = torch.cat([rollout["dones"][1:], self.done[None]])
        values = torch.cat([rollout["values"], last[None]])
        for t in reversed(range(len(result))):
            keep = 1.0 - dones[t]
            delta = rollout["rewards"][t] + self.config.gamma * keep * values[t + 1] - values[t]
            gae = delta + self.config.gamma * self.config.gae_lambda * keep * gae
            result[t] = gae
        return result

    def learn(self, batch: dict[str, torch.Tensor], state: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Take one optimiser step on whole sequences."""
        config = self.config
        _, logp, entropy, value, _ = self.agent(batch["obs"], batch["dones"], state, batch["actions"])
        ratio = (logp - batch["logps"]).exp()
        advantage = batch["advantages"]
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
        loss = torch.max(-advantage * ratio, -advantage * clipped).mean() - config.entropy_coef * entropy.mean()
        loss = loss + config.value_coef * 0.5 * (value - batch["returns"]).square().mean()
        self.adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.agent.parameters(), config.max_grad_norm)
        self.adam.step()


def clean_loop(env: ParticleGrid, config: TrainerConfig, hidden: int = 128) -> Callable[[], None]:
    """Return a function that runs one iteration in the style of CleanRL."""
    return CleanLoop(env, config, hidden).iterate


def recurrent_ppo(env: ParticleGrid, config: TrainerConfig, hidden: int = 128) -> Callable[[], None]:
    """Return a function that runs one iteration of sb3-contrib's RecurrentPPO.

    Raises:
        ImportError: if sb3-contrib is not installed.
    """
    from sb3_contrib import RecurrentPPO

    layers = {
        "features_extractor_class": extractor(2 * env.vision + 1, hidden),
        "net_arch": [],
        "lstm_hidden_size": hidden,
        "shared_lstm": True,
        "enable_critic_lstm": False,
    }
    model = RecurrentPPO(
        "MlpLstmPolicy",
        vector_env(env),
        learning_rate=config.learning_rate,
        n_steps=config.rollout_length,
        batch_size=config.minibatch,
        n_epochs=config.epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip,
        ent_coef=config.entropy_coef,
        vf_coef=config.value_coef,
        max_grad_norm=config.max_grad_norm,
        policy_kwargs=layers,
        device="cpu",
    )
    return lambda: model.learn(env.num_agents * config.rollout_length, reset_num_timesteps=False) and None


def extractor(side: int, hidden: int) -> type:
    """Return `Eyes` as a features extractor class for Stable-Baselines3."""
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

    class Extractor(BaseFeaturesExtractor):
        def __init__(self, space: Any) -> None:
            super().__init__(space, hidden)
            self.eyes = Eyes(side, hidden)

        def forward(self, obs: torch.Tensor) -> torch.Tensor:
            return self.eyes(obs)

    return Extractor


def vector_env(env: ParticleGrid) -> Any:
    """Return the environment as a VecEnv of Stable-Baselines3. All agents share one empty info."""
    from stable_baselines3.common.vec_env import VecEnv

    class Vector(VecEnv):
        def __init__(self) -> None:
            super().__init__(env.num_agents, env.single_observation_space, env.single_action_space)
            self.infos: list[dict] = [{}] * env.num_agents

        def reset(self) -> np.ndarray:
            return env.reset(0)[0]

        def step_async(self, actions: np.ndarray) -> None:
            self.chosen = actions.astype(env.actions.dtype)

        def step_wait(self) -> tuple:
            obs, rewards, _, truncations, _ = env.step(self.chosen)
            return obs, rewards, truncations, self.infos

        def close(self) -> None: ...
        def get_attr(self, name: str, indices: Any = None) -> list:
            return [getattr(env, name, None)] * env.num_agents

        def set_attr(self, *_: Any) -> None: ...
        def env_method(self, *_: Any, **__: Any) -> list:
            return []

        def env_is_wrapped(self, *_: Any) -> list[bool]:
            return [False] * env.num_agents

    return Vector()
