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
    "muon_scale",
    "anneal_power",
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
OPTIMISERS = ("adam", "muon")
FAST_MODES = ("auto", "off", "fp32", "bf16")
FRACTIONS = ("gamma", "gae_lambda", "scripted_opponents", "opponent_pool")


@dataclass(frozen=True)
class TrainerConfig:
    """Settings of the trainer; sizes count agent-steps.

    Raises:
        UserError: if a value is out of range.
        UserTypeError: if a value has the wrong type.
    """

    #: Agent-steps to train for: some minutes on two cores, in which every task visibly learns. The last iteration may
    #: overshoot by less than a batch.
    total_steps: int = 6_000_000
    #: Steps per rollout, and of backpropagation through time.
    rollout_length: int = 32
    #: Agent-steps per optimiser step, at most: whole rollouts of some agents. Larger ones starve the first millions of
    #: steps of updates.
    minibatch: int = 4096
    #: Passes over a batch. Fresh data is cheap here, and one pass keeps it on-policy.
    epochs: int = 1
    #: Of Adam, at the start, for many small updates.
    learning_rate: float = 2e-3
    #: Lower the learning rate and the entropy bonus to 0 over `total_steps`.
    anneal: bool = True
    #: They fall with this power of the share of steps that is left. Noise limits what is learned early on, so 2 gets
    #: further than 1 in the same time.
    anneal_power: float = 2.0
    #: Discount per step. Actions have their effect within some ten steps; a longer view adds the noise of all others.
    gamma: float = 0.9
    #: Bias (0) against variance (1) of the advantages. With many neighbours, variance is what hurts.
    gae_lambda: float = 0.8
    #: Distance from 1 beyond which probability ratios get no more gradient.
    clip: float = 0.2
    #: Weight of the value loss.
    value_coef: float = 0.5
    #: Weight of the entropy bonus at the start: enough to keep agents exploring. Its cost is gone at the end.
    entropy_coef: float = 0.01
    #: Gradients with a larger norm are scaled down to it: a rare batch must not undo what was learnt.
    max_grad_norm: float = 0.5
    #: Factor of the rewards in [-1, 1] that are learnt from, not of logged ones. Unscaled, the value loss drowns the
    #: policy under gradient clipping.
    reward_scale: float = 0.1
    #: Epsilon of Adam, larger than its default, so that small second moments do not make huge steps early on.
    adam_eps: float = 1e-5
    #: adam (Kingma and Ba 2015), or muon (Jordan et al. 2024) for weight matrices and Adam for the rest. See
    #: `particle_grid.learn.optimiser`.
    optimiser: str = "muon"
    #: Rate of Muon, as a multiple of `learning_rate`, which is that of Adam. Their steps have the same RMS at 1.
    muon_scale: float = 8.0
    #: Share of the worlds in which the task's script plays one of two teams.
    scripted_opponents: float = 0.0
    #: Share of the worlds in which earlier versions of the policy play one of two teams.
    opponent_pool: float = 0.0
    #: Groups of worlds that are simulated in turn, one while another is inferred. 0: two on a GPU if the worlds can be
    #: halved, else one.
    env_splits: int = 0
    #: auto, cpu or cuda. auto: cuda if there is one.
    device: str = "auto"
    #: CPU threads. 0: one per core.
    threads: int = 0
    #: Kernels for policies on CPUs: bf16, fp32, or off for plain PyTorch, which is several times slower. auto: bf16 if
    #: the processor has it, else fp32. See `particle_grid.learn.fast.accelerate`.
    fast: str = "auto"
    #: Agent-steps between checkpoints, about a minute. 0: only at the end. Ctrl-C also saves one.
    checkpoint_every: int = 2_000_000
    #: Of environments, samples and the order of minibatches.
    seed: int = 0

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
        self._require("optimiser", self.optimiser in OPTIMISERS, " or ".join(OPTIMISERS))
        self._require("fast", self.fast in FAST_MODES, f"one of {', '.join(FAST_MODES)}")
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
