"""Other trainers' loops in our environment, with the network of `policy=conv_lstm` in plain torch: to compare with.

`clean_loop` is written in the manner of CleanRL's recurrent PPO: one file, torch's own LSTM stepped through the masks
of episodes, distribution objects, tensors of a rollout, minibatches of whole sequences. `recurrent_ppo` is the
RecurrentPPO of sb3-contrib as it comes, given the same layers through its own options. Both return a function that runs
one iteration.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical, Normal

from particle_grid.env import ParticleGrid
from particle_grid.learn.policy import CHANNELS, FEATURES, ConvEncoder
from particle_grid.learn.trainer import TrainerConfig


class Eyes(nn.Module):
    """Observations [B, 128], of any dtype -> f32[B, hidden]: the part of ConvLSTM in front of its LSTM."""

    def __init__(self, side: int, hidden: int) -> None:
        super().__init__()
        self.cells, self.encoder = side * side, ConvEncoder(side)
        self.linear = nn.Linear(CHANNELS + FEATURES, hidden)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        cells = nn.functional.one_hot(obs[:, : self.cells].long(), 7).float()
        return self.linear(torch.cat([self.encoder(cells), obs[:, self.cells :] / 255], 1))


class Agent(nn.Module):
    """The policy, as a single file of CleanRL's would have it."""

    def __init__(self, env: ParticleGrid, hidden: int) -> None:
        super().__init__()
        self.discrete, self.hidden = env.discrete, hidden
        self.eyes, self.lstm = Eyes(2 * env.vision + 1, hidden), nn.LSTM(hidden, hidden)
        self.actor, self.critic = nn.Linear(hidden, 6 if env.discrete else 2), nn.Linear(hidden, 1)
        self.log_std = nn.Parameter(torch.zeros(2))

    def forward(self, obs: torch.Tensor, done: torch.Tensor, state: tuple, action: torch.Tensor | None = None) -> tuple:
        """obs [T, B, 128], done [T, B] -> action, its logp, entropy, value, state."""
        x, hidden = self.eyes(obs.flatten(0, 1)).unflatten(0, obs.shape[:2]), []
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


def clean_loop(env: ParticleGrid, config: TrainerConfig, hidden: int = 128) -> Callable[[], None]:
    agent, n, steps = Agent(env, hidden), env.num_agents, config.rollout_length
    adam = torch.optim.Adam(agent.parameters(), lr=config.learning_rate, eps=config.adam_eps)
    env.reset(0)
    state = torch.zeros(1, n, hidden), torch.zeros(1, n, hidden)
    done = torch.ones(n)

    def iteration() -> None:
        nonlocal state, done
        first, rows = state, []
        with torch.no_grad():
            for _ in range(steps):
                obs = torch.from_numpy(env.observations.copy())
                action, logp, _, value, state = agent(obs[None], done[None], state)
                env.step(action[0].numpy().astype(env.actions.dtype))
                rows.append((obs, done, action[0], logp[0], value[0], torch.from_numpy(env.rewards.copy())))
                done = torch.from_numpy(env.truncations.copy()).float()
            obs, dones, actions, logps, values, rewards = (torch.stack(x) for x in zip(*rows, strict=True))
            last = agent(torch.from_numpy(env.observations.copy())[None], done[None], state)[3][0]
            advantages, gae = torch.zeros_like(rewards), torch.zeros(n)
            for t in reversed(range(steps)):
                going = 1.0 - (done if t == steps - 1 else dones[t + 1])
                delta = rewards[t] + config.gamma * going * (last if t == steps - 1 else values[t + 1]) - values[t]
                advantages[t] = gae = delta + config.gamma * config.gae_lambda * going * gae
            returns = advantages + values
        for agents in torch.randperm(n).split(config.minibatch // steps):
            then = first[0][:, agents], first[1][:, agents]
            _, logp, entropy, value, _ = agent(obs[:, agents], dones[:, agents], then, actions[:, agents])
            ratio, advantage = (logp - logps[:, agents]).exp(), advantages[:, agents]
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
            loss = torch.max(-advantage * ratio, -advantage * clipped).mean() - config.entropy_coef * entropy.mean()
            loss = loss + config.value_coef * 0.5 * (value - returns[:, agents]).square().mean()
            adam.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), config.max_grad_norm)
            adam.step()

    return iteration


def recurrent_ppo(env: ParticleGrid, config: TrainerConfig, hidden: int = 128) -> Callable[[], None]:
    """Raises ImportError without sb3-contrib."""
    from sb3_contrib import RecurrentPPO
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
    from stable_baselines3.common.vec_env import VecEnv

    class Extractor(BaseFeaturesExtractor):
        def __init__(self, space: Any) -> None:
            super().__init__(space, hidden)
            self.eyes = Eyes(2 * env.vision + 1, hidden)

        def forward(self, obs: torch.Tensor) -> torch.Tensor:
            return self.eyes(obs)

    class Vector(VecEnv):
        """The environment as Stable-Baselines3 wants it; it has no use for infos here, so there is one for all."""

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

    model = RecurrentPPO(
        "MlpLstmPolicy",
        Vector(),
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
        policy_kwargs={
            "features_extractor_class": Extractor,
            "net_arch": [],
            "lstm_hidden_size": hidden,
            "shared_lstm": True,
            "enable_critic_lstm": False,
        },
        device="cpu",
    )
    return lambda: model.learn(env.num_agents * config.rollout_length, reset_num_timesteps=False) and None
