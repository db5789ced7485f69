"""The checks of a policy."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from time import perf_counter

import torch
from torch import Tensor

from particle_grid.authoring.findings import Check, examine, expect, one_thread
from particle_grid.env import ACTIONS, ParticleGrid
from particle_grid.learn.policy import CELLS, FEATURES, Policy, RecurrentState
from particle_grid.learn.trainer import Trainer
from particle_grid.runs.build import build_policy
from particle_grid.settings.compose import composed
from particle_grid.settings.run_config import RunConfig
from particle_grid.support.errors import UserError

STEPS = 6
AGENTS = 5
SHAKE = 0.1  # standard deviation of what is added to weights, since some may start at 0
TOWN = {"agents": 128, "height": 64, "width": 64}  # the world in which the speed is measured
BESIDE = "conv_lstm"  # the policy that ships, for comparison


@dataclass(frozen=True)
class PolicyClass:
    """A policy, and the settings with which it is trained."""

    place: str
    settings: Sequence[str]

    @cached_property
    def configs(self) -> dict[str, RunConfig]:
        """Return the settings of a run in each action form."""
        return {form: composed([f"policy={self.place}", f"action={form}", *self.settings]) for form in ACTIONS}

    def make(self, form: str) -> Policy:
        """Return a new policy in which every weight matters."""
        policy = build_policy(self.configs[form])
        with torch.no_grad():
            for weight in policy.parameters():
                weight.add_(SHAKE * torch.randn_like(weight))
        return policy


def check(place: str, file: str, settings: Sequence[str]) -> bool:
    """Check a policy, print what was found, and return whether all is well."""
    return examine(PolicyClass(place, settings), file, CHECKS)


def observations(policy: Policy, steps: int = STEPS, agents: int = AGENTS) -> Tensor:
    """Return random observations u8[steps, agents, observation size]."""
    cells = torch.randint(0, CELLS, (steps, agents, policy.side**2))
    features = torch.randint(0, 256, (steps, agents, FEATURES))
    return torch.cat([cells, features], -1).to(torch.uint8)


def no_starts(steps: int = STEPS, agents: int = AGENTS) -> Tensor:
    """Return that no agent begins an episode, bool[steps, agents]."""
    return torch.zeros(steps, agents, dtype=torch.bool)


def memory(policy: Policy, agents: int = AGENTS) -> RecurrentState:
    """Return a recurrent state as after some steps."""
    return tuple(x + 0.5 * torch.randn(x.shape) for x in policy.initial_state(agents))


def builds(policy: PolicyClass) -> str:
    """Check that the policy can be made, for both action forms."""
    for form in ACTIONS:
        made = policy.make(form)
    return f"{sum(weight.numel() for weight in made.parameters())} parameters"


@torch.no_grad()
def has_shapes(policy: PolicyClass) -> str:
    """Check the shapes and dtypes of what the policy returns."""
    for form in ACTIONS:
        made = policy.make(form)
        state = made.initial_state(AGENTS)
        if not isinstance(state, tuple):
            raise UserError(f"`initial_state` returns a {type(state).__name__}: return a tuple of tensors, or ().")
        for x in state:
            expect("`initial_state`", x, (AGENTS, *x.shape[1:]))
        returned = made(observations(made), no_starts(), state)
        if not isinstance(returned, tuple) or len(returned) != 3:
            raise UserError("`forward` does not return three things: return out, value, state.")
        out, value, after = returned
        expect("`forward`: out", out, (STEPS, AGENTS, made.head.outputs))
        expect("`forward`: value", value, (STEPS, AGENTS))
        if not isinstance(after, tuple) or len(after) != len(state):
            raise UserError("`forward` returns another state than `initial_state`: return a tuple of as many tensors.")
        for x, first in zip(after, state, strict=True):
            expect("`forward`: state", x, tuple(first.shape))
    return f"memory of {sum(x[0].numel() for x in state)} numbers" if state else "no memory"


@torch.no_grad()
def repeats(policy: PolicyClass) -> str:
    """Check that the same seed gives the same weights, and the same observations the same outputs."""
    first, second = (build_policy(policy.configs["discrete"]).state_dict() for _ in range(2))
    for name, weight in first.items():
        if not torch.equal(weight, second[name]):
            raise UserError(
                f"{name} starts with other numbers although the seed is the same: draw them from torch's own "
                f"generator, which is seeded, and from no other."
            )
    made = policy.make("discrete")
    inputs = observations(made), no_starts(), memory(made)
    (out, value, state), (other_out, other_value, other_state) = (made(*inputs) for _ in range(2))
    if not _all_close((out, value, *state), (other_out, other_value, *other_state)):
        raise UserError(
            "the same observations give other outputs: let `forward` use no dropout and no random numbers, and keep "
            "nothing but the state that it returns."
        )
    return ""


@torch.no_grad()
def computes_steps_alike(policy: PolicyClass) -> str:
    """Check that a chunk of steps gives what its steps give one by one, as in learning and in playing."""
    made = policy.make("discrete")
    obs = observations(made)
    starts = torch.rand(STEPS, AGENTS) < 0.3
    state = first = memory(made)
    parts = []
    for t in range(STEPS):
        out, value, state = made(obs[t : t + 1], starts[t : t + 1], state)
        parts.append(torch.cat([out, value[..., None]], -1))
    out, value, last = made(obs, starts, first)
    if not _close(torch.cat([out, value[..., None]], -1), torch.cat(parts)) or not _all_close(last, state):
        raise UserError(
            f"{STEPS} steps at once give other results than the same steps one by one: carry the memory from step to "
            f"step within `forward`, compute nothing from later steps, and use no batch statistics."
        )
    return ""


@torch.no_grad()
def forgets_at_starts(policy: PolicyClass) -> str:
    """Check that an agent that begins an episode acts as a new one, and that others remember."""
    made = policy.make("discrete")
    obs = observations(made)
    starts = no_starts()
    starts[2, 1] = True
    before = memory(made)
    out, _, _ = made(obs, starts, before)
    fresh, _, _ = made(obs[2:], no_starts(STEPS - 2), made.initial_state(AGENTS))
    carried, _, _ = made(obs, no_starts(), before)
    if not _close(out[2:, 1], fresh[:, 1]):
        raise UserError(
            "after a start it acts otherwise than with `initial_state`: where starts[t] is true, replace the memory by "
            "the initial one before step t uses it."
        )
    others = torch.arange(AGENTS) != 1
    if not _close(out[:, others], carried[:, others]) or not _close(out[:2], carried[:2]):
        raise UserError("a start of one agent changes others, or earlier steps: reset the rows of starts[t] alone.")
    if before and _close(out, carried):
        raise UserError("its memory changes nothing: let the output depend on it, or return () from `initial_state`.")
    return "" if before else "no memory"


@torch.no_grad()
def keeps_agents_apart(policy: PolicyClass) -> str:
    """Check that what an agent does depends on its own observations only: minibatches hold some of the agents."""
    made = policy.make("discrete")
    obs = observations(made)
    state = memory(made)
    out, value, _ = made(obs, no_starts(), state)
    some, some_values, _ = made(obs[:, :2], no_starts(agents=2), tuple(x[:2] for x in state))
    if not _close(out[:, :2], some) or not _close(value[:, :2], some_values):
        raise UserError(
            "an agent acts otherwise if others are left out: keep agents apart (no batch normalisation, no sums over "
            "axis 1), because learning takes some of them at a time."
        )
    return ""


def has_gradients(policy: PolicyClass) -> str:
    """Check that a finite gradient reaches every parameter."""
    for form in ACTIONS:
        made = policy.make(form)
        out, value, _ = made(observations(made, 16, 64), no_starts(16, 64), memory(made, 64))
        sample, _ = made.head.sample(out.detach(), torch.Generator().manual_seed(0))
        logp, entropy = made.head.log_prob_and_entropy(out, sample)
        (logp * torch.randn_like(logp) + entropy + value.square()).sum().backward()
        for name, weight in made.named_parameters():
            if weight.requires_grad and (weight.grad is None or not weight.grad.any()):
                raise UserError(
                    f"no gradient reaches {name} ({form} actions): use it in `forward`, without detach or argmax, or "
                    f"remove it."
                )
            if weight.grad is not None and not weight.grad.isfinite().all():
                raise UserError(
                    f"the gradient of {name} is NaN or infinite ({form} actions): bound what it goes through."
                )
    return ""


def measures_speed(policy: PolicyClass) -> str:
    """Measure training with all threads and with one, beside a policy that ships."""
    config = policy.configs["discrete"]
    many, how = training_speed(config)
    with one_thread():
        one, _ = training_speed(config)
    other, _ = training_speed(replace(config, policy=BESIDE, policy_options={}))
    speeds = f"{many / 1e3:.1f}k agent-steps/s in training, {one / 1e3:.1f}k with trainer.threads=1"
    return f"{speeds}; {BESIDE}: {other / 1e3:.1f}k. {how}"


def training_speed(config: RunConfig) -> tuple[float, str]:
    """Return the agent-steps per second of the second iteration, and the sentence of the trainer about the policy."""
    settings = replace(config.trainer, minibatch=32 * config.trainer.rollout_length)
    env = ParticleGrid("center", config.action, vision=config.world.vision, **TOWN)  # type: ignore[arg-type]
    trainer = Trainer(env, build_policy(config), settings)
    trainer.rollout()
    trainer.update()  # these may compile
    begin = perf_counter()
    trainer.rollout()
    trainer.update()
    return trainer.batch / (perf_counter() - begin), trainer.how


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-3, atol=1e-4)  # float32, in another order of additions


def _all_close(a: RecurrentState, b: RecurrentState) -> bool:
    return all(_close(x, y) for x, y in zip(a, b, strict=True))


CHECKS = (
    Check("can be made, for discrete and continuous actions", builds, vital=True),
    Check("shapes of `initial_state` and `forward`", has_shapes, vital=True),
    Check("the same seed and observations give the same outputs", repeats, vital=True),
    Check("some steps at once give what single steps give", computes_steps_alike),
    Check("memory is reset where an episode starts", forgets_at_starts),
    Check("agents do not depend on each other", keeps_agents_apart),
    Check("a finite gradient reaches every parameter", has_gradients),
    Check("speed of training", measures_speed),
)
