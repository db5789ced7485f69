"""The settings of the trainer: defaults, meaning and valid values."""

import math
import re
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
    "awr_temperature",
)
NOT_NEGATIVE = (
    "learning_rate",
    "value_coef",
    "entropy_coef",
    "env_splits",
    "second_team_weight",
    "threads",
    "checkpoint_every",
    "seed",
)
DEVICE = re.compile(r"auto|cpu(:0)?|cuda(:\d+)?")
OBJECTIVES = ("ppo", "awr")
OPTIMISERS = ("adam", "muon")
FAST_MODES = ("auto", "off", "fp32", "bf16")
GRAPH_MODES = ("auto", "on", "off")
FRACTIONS = ("gamma", "gae_lambda", "scripted_opponents", "opponent_pool")


@dataclass(frozen=True)
class TrainerConfig:
    """Settings of the trainer; sizes count agent-steps.

    Raises:
        UserError: if a value is out of range.
        UserTypeError: if a value has the wrong type.
    """

    #: Agent-steps to train for. Tasks that ship have their own defaults, 4 to 40 million: minutes on two cores, enough
    #: for visible progress. The last iteration may overshoot by less than a batch.
    total_steps: int = 6_000_000
    #: Steps per rollout, which is also the length of backpropagation through time.
    rollout_length: int = 32
    #: Maximum number of agent-steps per optimiser step. A minibatch holds whole rollouts of some agents. With larger
    #: minibatches, the first millions of steps have too few updates.
    minibatch: int = 4096
    #: Whether `minibatch` counts the agent-steps of each process. By default, the processes of a run share a minibatch,
    #: so that they learn as one process would with all agents. With many processes, their shares become too small to be
    #: computed efficiently: then let each have a minibatch, and raise `learning_rate`.
    minibatch_per_process: bool = False
    #: Passes over each batch. Fresh data is cheap here, and a single pass keeps the data on-policy.
    epochs: int = 1
    #: Learning rate of Adam at the start of training, suited to many small updates.
    learning_rate: float = 2e-3
    #: Whether the learning rate and the entropy bonus fall to 0 over `total_steps`.
    anneal: bool = True
    #: Exponent of the annealing: the learning rate and the entropy bonus are proportional to the remaining share of the
    #: steps, raised to this power. Early on, noise limits what is learned, so 2 gets further than 1 in the same time.
    anneal_power: float = 2.0
    #: Discount per step. Actions take effect within about ten steps; a longer horizon adds the noise of other agents.
    gamma: float = 0.9
    #: Trade-off between bias (0) and variance (1) of the advantages. With many neighbours, variance does more harm.
    gae_lambda: float = 0.8
    #: What the policy learns from: ppo, the clipped surrogate; or awr, advantage-weighted regression, which needs
    #: several `epochs` and runs without a kernel for the loss. See `particle_grid.learn.ppo.policy_terms`.
    objective: str = "ppo"
    #: Temperature of `objective=awr`, in standard deviations of the advantages. The lower it is, the more only the best
    #: actions count.
    awr_temperature: float = 1.0
    #: Clipping range of PPO: the distance from 1 beyond which a probability ratio gets no gradient.
    clip: float = 0.2
    #: Weight of the value loss.
    value_coef: float = 0.5
    #: Weight of the entropy bonus at the start of training, large enough to keep agents exploring.
    entropy_coef: float = 0.01
    #: Maximum norm of the gradients. Larger ones are scaled down to it, so that a rare batch cannot undo what was
    #: learned.
    max_grad_norm: float = 0.5
    #: Factor that scales the rewards, which lie in [-1, 1], for learning; logged rewards are not scaled. Without it,
    #: the value loss would dominate the policy loss under gradient clipping.
    reward_scale: float = 0.1
    #: Epsilon of Adam. It is larger than usual, so that small second moments do not cause huge steps early on.
    adam_eps: float = 1e-5
    #: adam (Kingma and Ba 2015) for all parameters, or muon (Jordan et al. 2024) for weight matrices and Adam for the
    #: rest. See `particle_grid.learn.optimiser`.
    optimiser: str = "muon"
    #: Learning rate of Muon, as a multiple of `learning_rate`. At 1, the steps of Muon and Adam have the same RMS.
    muon_scale: float = 8.0
    #: Weight of the second team's advantages relative to those of the first. Each team's are normalised by themselves.
    #: 0: those of both are normalised together, and the team whose rewards vary more dominates.
    second_team_weight: float = 0.0
    #: Share of the worlds in which the task's script plays one of the two teams.
    scripted_opponents: float = 0.0
    #: Share of the worlds in which earlier versions of the policy play one of the two teams.
    opponent_pool: float = 0.0
    #: Number of groups of worlds: one group is simulated while the policy infers the actions of another. 0: two on a
    #: GPU if the worlds can be halved, otherwise one.
    env_splits: int = 0
    #: Device that trains the policy: auto, cpu or cuda. auto: cuda if it is available, otherwise cpu.
    device: str = "auto"
    #: Number of CPU threads. 0: one per core.
    threads: int = 0
    #: Precision of the compiled kernels that run policies: bf16 or fp32, or off for plain PyTorch, which is several
    #: times slower. auto: bf16 if the processor has instructions for it, otherwise fp32. See
    #: `particle_grid.learn.fast.accelerate`.
    fast: str = "auto"
    #: Whether the steps of rollouts and updates are captured as CUDA graphs and replayed: auto, on or off. auto: on a
    #: GPU, for a single process and unless `fast` is off. on: also on a CPU, where the same steps run in plain PyTorch
    #: and are not captured, which is for tests. See `particle_grid.learn.gpu.graphs`.
    graphs: str = "auto"
    #: Agent-steps between checkpoints. 0: only one at the end. Ctrl-C also saves a checkpoint.
    checkpoint_every: int = 2_000_000
    #: Seed of the environments, the samples and the order of minibatches.
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
        for field in fields(self):
            if type(field.default) is int:
                self._require(field.name, getattr(self, field.name) < 1 << 63, "below 2**63")
        self._require(
            "device", bool(DEVICE.fullmatch(self.device)), "auto, cpu, cuda, or one of several GPUs such as cuda:1"
        )
        self._require("objective", self.objective in OBJECTIVES, " or ".join(OBJECTIVES))
        self._require("optimiser", self.optimiser in OPTIMISERS, " or ".join(OPTIMISERS))
        self._require("fast", self.fast in FAST_MODES, f"one of {', '.join(FAST_MODES)}")
        self._require("graphs", self.graphs in GRAPH_MODES, f"one of {', '.join(GRAPH_MODES)}")
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
