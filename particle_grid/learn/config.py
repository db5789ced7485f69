"""The settings of the trainer: defaults, meaning and valid values."""

import math
from dataclasses import dataclass, fields

from particle_grid.support.errors import UserError, UserTypeError

MAX_THREADS = 1024  # OpenMP ends the process without a message if it is asked for many more
POSITIVE = (
    "total_steps",
    "rollout_length",
    "minibatch",
    "epochs",
    "clip",
    "max_grad_norm",
    "reward_scale",
    "adam_eps",
)
NOT_NEGATIVE = (
    "learning_rate",
    "value_coef",
    "entropy_coef",
    "env_splits",
    "threads",
    "checkpoint_every",
    "seed",
)
FRACTIONS = ("gamma", "gae_lambda", "scripted_opponents", "opponent_pool")


@dataclass(frozen=True)
class TrainerConfig:
    """Settings of the trainer. `conf/trainer/default.yaml` gives the reason for each default.

    Raises:
        UserError: if a value is out of range.
        UserTypeError: if a value has the wrong type.
    """

    total_steps: int = 6_000_000  #: agent-steps to train for; the last iteration may overshoot by less than a batch
    rollout_length: int = 32  #: steps per rollout, and of backpropagation through time
    minibatch: int = 2048  #: agent-steps per optimiser step, at most; made of whole rollouts of some agents
    epochs: int = 1  #: passes over a batch
    learning_rate: float = 2e-3  #: of Adam, at the start
    anneal: bool = True  #: lower learning rate and entropy bonus linearly to 0 over total_steps
    gamma: float = 0.9  #: discount per step
    gae_lambda: float = 0.8  #: bias (0) against variance (1) of the advantages
    clip: float = 0.2  #: distance from 1 beyond which probability ratios are clipped
    value_coef: float = 0.5  #: weight of the value loss
    entropy_coef: float = 0.01  #: weight of the entropy bonus, at the start
    max_grad_norm: float = 0.5  #: gradients with a larger norm are scaled down to it
    reward_scale: float = 0.1  #: factor of the rewards that are learnt from; logged rewards are not scaled
    adam_eps: float = 1e-5  #: epsilon of Adam
    scripted_opponents: float = 0.0  #: share of the worlds in which the task's script plays one of two teams
    opponent_pool: float = 0.0  #: share of the worlds in which earlier versions of the policy play one of two teams
    env_splits: int = 0  #: groups of worlds simulated in turn; 0: two on a GPU if the worlds can be halved, else one
    device: str = "auto"  #: auto, cpu or cuda
    threads: int = 0  #: CPU threads; 0: all cores
    fast: str = "auto"  #: auto, off, fp32 or bf16, see `particle_grid.learn.fast.accelerate`
    checkpoint_every: int = 2_000_000  #: agent-steps between checkpoints; 0: only at the end
    seed: int = 0  #: of environments, samples and the order of minibatches

    def __post_init__(self) -> None:
        self._check_types()
        for name in POSITIVE:
            self._require(name, 0 < getattr(self, name) < math.inf, "positive")
        for name in NOT_NEGATIVE:
            self._require(name, 0 <= getattr(self, name) < math.inf, "0 or more")
        for name in FRACTIONS:
            self._require(name, 0 <= getattr(self, name) <= 1, "between 0 and 1")
        self._require("threads", self.threads <= MAX_THREADS, f"at most {MAX_THREADS}")
        self._require("seed", self.seed < 1 << 63, "below 2**63")
        self._require("device", self.device.partition(":")[0] in ("auto", "cpu", "cuda"), "auto, cpu or cuda")
        self._check_combinations()

    def _check_types(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            expected = type(field.default)
            if type(value) is not expected and (expected, type(value)) != (float, int):
                raise UserTypeError(
                    f"trainer.{field.name}={value!r} has the wrong type: it must be {expected.__name__}, such as "
                    f"{field.default}."
                )

    def _check_combinations(self) -> None:
        """Check values whose limits depend on other values."""
        rest = 1 - self.scripted_opponents
        self._require("opponent_pool", self.opponent_pool <= rest, f"at most {rest:g}, 1 - trainer.scripted_opponents")
        whole = self.minibatch % self.rollout_length == 0
        self._require("minibatch", whole, f"a multiple of trainer.rollout_length={self.rollout_length}")

    def _require(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            raise UserError(f"trainer.{name}={getattr(self, name)!r} is out of range: it must be {what}.")
