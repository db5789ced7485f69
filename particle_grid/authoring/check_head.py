"""The checks of a head."""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from particle_grid.authoring.findings import Check, examine, expect, one_thread
from particle_grid.env import ACTIONS
from particle_grid.learn.heads import Head
from particle_grid.runs.build import build_policy
from particle_grid.settings.compose import composed
from particle_grid.support.errors import UserError

DRAWS = 40_000  # samples from which densities, entropies and sizes are estimated
SIGNIFICANT = 5.0  # standard errors that count as a difference
APPROXIMATE = 0.1  # nats, and share of the probability: entropies may be approximations
SIZES = (0.3, 0.5)  # sizes of first actions
SIZE_TOLERANCE = 0.2  # relative: a head may ignore that the environment clips
SPREADS = (0.0, 1.0, 3.0)  # spreads of the policy's outputs
LARGE = 10.0  # factor of the outputs for which gradients should still be finite
MOST_ALIKE = 0.01  # share of continuous samples that may be the same number
CHOICES = 3  # choices of the discrete form along each axis


@dataclass(frozen=True)
class HeadClass:
    """A head, and the settings with which it is trained."""

    place: str
    settings: Sequence[str]

    @cached_property
    def heads(self) -> dict[str, Head]:
        """Return a head for each action form that it serves.

        Raises:
            Exception: what the head raises, if it serves none.
        """
        heads = {}
        for form in ACTIONS:
            try:
                overrides = ["policy=mlp", f"policy.head={self.place}", f"action={form}", *self.settings]
                heads[form] = build_policy(composed(overrides)).head
            except Exception as error:  # a head need not serve both forms
                reason = error
        if not heads:
            raise reason
        return heads

    def cases(self) -> Iterator[tuple[Head, Tensor]]:
        """Yield each head with outputs f32[DRAWS, K] that are the same in each row, of several spreads."""
        generator = torch.Generator().manual_seed(0)
        for head in self.heads.values():
            for spread in SPREADS:
                row = spread * torch.randn(head.outputs, generator=generator)
                yield head, row.expand(DRAWS, head.outputs)


def check(place: str, file: str, settings: Sequence[str]) -> bool:
    """Check a head, print what was found, and return whether all is well."""
    with one_thread():
        return examine(HeadClass(place, settings), file, CHECKS)


def drawn(head: Head, out: Tensor) -> tuple[Tensor, Tensor]:
    """Return samples and their log-probabilities, always from the same seed."""
    return head.sample(out, torch.Generator().manual_seed(1))


def builds(head: HeadClass) -> str:
    """Check that the head can be made for discrete or for continuous actions."""
    return " and ".join(f"action={form}" for form in head.heads)


@torch.no_grad()
def has_shapes(head: HeadClass) -> str:
    """Check shapes and dtypes, also with two leading axes, as in learning."""
    for made in head.heads.values():
        for lead in ((4,), (3, 4)):
            out = torch.randn(*lead, made.outputs)
            sample, logp = drawn(made, out)
            expect("`sample`: the sample", sample, (*lead, made.components), made.dtype)
            expect("`sample`: the log-probability", logp, lead)
            again, entropy = made.log_prob_and_entropy(out, sample)
            expect("`log_prob_and_entropy`: the log-probability", again, lead)
            expect("`log_prob_and_entropy`: the entropy", entropy, lead)
            expect("`mode`", made.mode(out), (*lead, made.components), made.dtype)
    return ""


@torch.no_grad()
def acts_in_range(head: HeadClass) -> str:
    """Check the actions of samples and of modes."""
    for form, made in head.heads.items():
        out = torch.randn(1000, made.outputs)
        for sample in (drawn(made, out)[0], made.mode(out)):
            action = made.to_action(sample)
            wanted = torch.float32 if form == "continuous" else torch.int32
            expect("`to_action`", action, (1000, 2), wanted)
            if form == "discrete" and not ((action >= 0) & (action < CHOICES)).all():
                raise UserError(f"`to_action` gives {action.min()} to {action.max()}: discrete actions are 0, 1 and 2.")
    return ""


@torch.no_grad()
def uses_its_generator(head: HeadClass) -> str:
    """Check that samples come from the generator that is given, and from nothing else."""
    for made in head.heads.values():
        out = torch.zeros(100, made.outputs)
        before = torch.get_rng_state()
        first, _ = drawn(made, out)
        torch.rand(1)  # moves torch's own generator
        second, _ = drawn(made, out)
        torch.set_rng_state(before)
        other, _ = made.sample(out, torch.Generator().manual_seed(2))
        if not torch.equal(first, second):
            raise UserError(
                "`sample` gives other samples with the same generator: pass generator=generator to what draws, and "
                "draw from nothing else."
            )
        if torch.equal(first, other):
            raise UserError(
                "`sample` gives the same samples with another generator: draw them from the one it is given."
            )
    return ""


@torch.no_grad()
def has_a_density(head: HeadClass) -> str:
    """Check that no number is drawn again and again, as happens where samples are clipped or rounded."""
    for made, out in head.cases():
        sample, _ = drawn(made, out)
        if not made.dtype.is_floating_point:
            continue
        for component in sample.unbind(-1):
            between = component[~_is_atom(made, component)]
            if not len(between):
                continue
            values, counts = between.unique(return_counts=True)
            share = counts.max().item() / len(component)
            if share > MOST_ALIKE:
                raise UserError(
                    f"{share:.0%} of the samples are exactly {values[counts.argmax()]:.3g}, so they have no density: "
                    f"return them as they are drawn, and clip or round in `to_action`; or list values that have a "
                    f"probability of their own in `atoms`."
                )
    return ""


def _atoms(head: Head) -> Tensor:
    """Return the values that have a probability of their own, beside a density."""
    return torch.tensor(getattr(head, "atoms", ()))


def _is_atom(head: Head, x: Tensor) -> Tensor:
    return torch.isin(x, _atoms(head))


@torch.no_grad()
def repeats_log_probs(head: HeadClass) -> str:
    """Check that learning sees the log-probability with which a sample was drawn."""
    for made, out in head.cases():
        sample, logp = drawn(made, out)
        again, _ = made.log_prob_and_entropy(out, sample)
        if not torch.allclose(logp, again, rtol=1e-4, atol=1e-4):
            raise UserError(
                f"`sample` and `log_prob_and_entropy` give log-probabilities that differ by up to "
                f"{(logp - again).abs().max():.3g} for the same sample: compute both from the sample that is returned, "
                f"before it is clipped, rounded or squashed."
            )
    return ""


@torch.no_grad()
def is_a_distribution(head: HeadClass) -> str:
    """Check that the probability of all samples, or of all actions, is 1."""
    for made, out in head.cases():
        if made.dtype.is_floating_point:
            mass, error = _integral(made, out)
            scale = _log_slope(made, drawn(made, out)[0])
            stretched = mass * scale.mean().exp().item() if scale is not None and scale.std() < 1e-3 else mass
        else:
            mass, error = _sum(made, out)
            stretched = mass
        if min(abs(mass - 1), abs(stretched - 1)) > SIGNIFICANT * error + APPROXIMATE / 2:
            raise UserError(
                f"the probabilities of all samples add up to {mass:.3f}, not 1: look for a factor that is missing in "
                f"`log_prob_and_entropy`, and sum the logarithms over the components."
            )
    return ""


def _integral(head: Head, out: Tensor) -> tuple[float, float]:
    """Return the integral of the density, and its standard error, by importance sampling from wide distributions.

    Each component is drawn from a Cauchy distribution around the samples; if there are atoms, half of the time it is
    one of them instead. A unit of length counts as much as the head says, or 1. Where the density is not a number, it
    is 0: such samples are impossible.
    """
    sample, _ = drawn(head, out)
    between = sample.masked_fill(_is_atom(head, sample), torch.nan)
    low, middle, high = between.nanquantile(torch.tensor([0.25, 0.5, 0.75]), 0).nan_to_num()
    scale = (high - low).clamp(min=1e-4)
    generator = torch.Generator().manual_seed(2)
    uniform = torch.rand(sample.shape, generator=generator)
    z = torch.tan(math.pi * (uniform - 0.5))
    x = middle + scale * z
    proposal = -(getattr(head, "unit", 1.0) * math.pi * scale * (1 + z * z)).log()
    if len(atoms := _atoms(head)):
        is_atom = torch.rand(sample.shape, generator=generator) < 0.5
        x = torch.where(is_atom, atoms[torch.randint(len(atoms), sample.shape, generator=generator)], x)
        proposal = torch.where(is_atom, -math.log(len(atoms)), proposal) + math.log(0.5)
    logp, _ = head.log_prob_and_entropy(out, x)
    ratio = (logp - proposal.sum(-1)).exp().double().nan_to_num(0.0, posinf=math.inf)
    return ratio.mean().item(), ratio.std().item() / math.sqrt(len(ratio))


def _sum(head: Head, out: Tensor) -> tuple[float, float]:
    """Return the sum over all samples that occur among many, with an estimate of the share that does not."""
    sample, logp = drawn(head, out)
    found, index, count = torch.unique(sample, dim=0, return_inverse=True, return_counts=True)
    each = torch.zeros(len(found)).scatter(0, index, logp)
    unseen = (count == 1).sum().item() / len(sample)
    return each.exp().sum().item() + unseen, unseen


def _log_slope(head: Head, sample: Tensor) -> Tensor | None:
    """Return by how much actions are stretched against samples, in logarithms f32[DRAWS]; None if some are not."""
    with torch.enable_grad():
        sample = sample.detach().double().requires_grad_()  # near the ends of a range, float32 has no slopes left
        action = head.to_action(sample)
        if not action.requires_grad:
            return None
        [slope] = torch.autograd.grad(action.sum(), sample)
    return slope.abs().log().sum(-1) if slope.all() else None


@torch.no_grad()
def knows_its_entropy(head: HeadClass) -> str:
    """Check the entropy, of samples or of actions, against the mean surprise of many samples."""
    for made, out in head.cases():
        sample, logp = drawn(made, out)
        entropy = made.log_prob_and_entropy(out, sample)[1][0].item()
        slope = _log_slope(made, sample) if made.dtype.is_floating_point else None
        surprises = [-logp.double()]
        if slope is not None:
            surprises.append(slope - logp.double())
        differences = [abs(x.mean().item() - entropy) - SIGNIFICANT * x.std().item() / DRAWS**0.5 for x in surprises]
        if not min(differences) <= APPROXIMATE:
            raise UserError(
                f"the entropy is {entropy:.3f}, but the mean of minus the log-probability of samples is "
                f"{surprises[0].mean():.3f}: correct one of them; both are in nats, summed over the components."
            )
    return ""


@torch.no_grad()
def sizes_first_actions(head: HeadClass) -> str:
    """Check that `init_bias` gives first actions of about the requested size."""
    notes = []
    for form, made in head.heads.items():
        for rms in SIZES:
            fresh = copy.deepcopy(made)
            try:
                bias = fresh.init_bias(rms)
            except UserError:
                notes.append(f"{form} actions cannot have {rms}")
                continue
            expect("`init_bias`", bias, (made.outputs,))
            action = fresh.to_action(drawn(fresh, bias.expand(DRAWS, -1))[0]).float()
            action = action - 1 if form == "discrete" else action.clamp(-1, 1)
            size = action.square().mean().sqrt().item()
            if not abs(size - rms) <= SIZE_TOLERANCE * rms:
                raise UserError(
                    f"`init_bias({rms})` leads to {form} actions with a root mean square of {size:.3f}: solve for the "
                    f"scale or the outputs that give {rms}, or raise UserError for what is out of reach."
                )
    return ", ".join(notes)


def has_gradients(head: HeadClass) -> str:
    """Check that the gradients of outputs and parameters are finite, also for large outputs."""
    for made, row in head.cases():
        made.zero_grad()
        out = (LARGE * row[:1000]).requires_grad_()
        logp, entropy = made.log_prob_and_entropy(out, drawn(made, out.detach())[0].detach())
        (logp.sum() + entropy.sum()).backward()
        weights = {name: weight.grad for name, weight in made.named_parameters()}
        for name, gradient in ({"the outputs": out.grad} | weights).items():
            if gradient is None:
                raise UserError(f"no gradient reaches {name}: use it in `log_prob_and_entropy`, without detach.")
            if not gradient.isfinite().all():
                raise UserError(
                    f"the gradient of {name} is NaN or infinite for outputs up to {out.abs().max():.3g}: bound scales, "
                    f"and keep away from log(0) and 0/0."
                )
    return ""


CHECKS = (
    Check("can be made for an action form", builds, vital=True),
    Check("shapes and dtypes", has_shapes, vital=True),
    Check("actions fit the environment", acts_in_range),
    Check("samples come from the generator that is given", uses_its_generator),
    Check("samples are neither clipped nor rounded", has_a_density, vital=True),
    Check("`sample` and `log_prob_and_entropy` agree", repeats_log_probs),
    Check("probabilities add up to 1", is_a_distribution),
    Check("the entropy agrees with samples", knows_its_entropy),
    Check("`init_bias` gives first actions of the requested size", sizes_first_actions),
    Check("gradients are finite", has_gradients),
)
