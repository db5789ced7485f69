"""Small trainers in toy environments."""

import torch

from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.policy import make_policy
from particle_grid.learn.trainer import Trainer
from tests.learn.toy import SPACES, Toy

SMALL = TrainerConfig(
    total_steps=256,
    rollout_length=8,
    minibatch=32,
    epochs=2,
    learning_rate=1e-2,
    device="cpu",
    threads=1,
    checkpoint_every=0,
)


class Record:
    """A logger that stores its scalars and calls a function after every iteration."""

    def __init__(self, then=lambda step: None):
        self.steps = []
        self.scalars = []
        self.then = then

    def log(self, step, scalars):
        self.steps.append(step)
        self.scalars.append(dict(scalars))
        self.then(step)


def make(name="conv_lstm", form="discrete", config=SMALL, env=None, seed=0, splits=1, **kwargs):
    torch.manual_seed(seed)
    policy = make_policy(name, 1, env.single_action_space if env else SPACES[form], hidden=16)
    envs = [Toy(8 // splits, SPACES[form], ends=0.1) for _ in range(splits)]
    return Trainer(env or (envs if splits > 1 else envs[0]), policy, config, **kwargs)


def weights(run):
    """Return a copy of all weights, as one vector."""
    return torch.nn.utils.parameters_to_vector(run.policy.parameters()).detach().clone()


def stir(run):
    """Change the weights so that memory and every input matter."""
    with torch.no_grad():
        for p in run.policy.parameters():
            p.add_(0.3 * torch.randn_like(p))
