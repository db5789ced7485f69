"""Checks of training on a GPU, or of the same code on a CPU: each returns figures, and whether they are good enough."""

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch

from particle_grid.env import ACTIONS, action_space
from particle_grid.experiments.training import Run
from particle_grid.learn.fast.compare import Results, largest_difference, results
from particle_grid.learn.fast.gpu import TOLERANCES, Compiled, compiled
from particle_grid.learn.policy import POLICIES, Policy, make_policy
from particle_grid.learn.trainer import Trainer

SAME = 1e-3  # relative difference of weights after a few steps that were computed in another order
ITERATIONS = 5  # enough to capture everything
SHAPES = 12  # more than torch compiles
KL = 1e-4  # largest divergence of a policy from itself
Case = Callable[[], dict[str, Any]]
MakeRun = Callable[..., Run]


def differences(got: Results, expected: Results) -> tuple[float, float]:
    """Return the largest relative differences of outputs and of gradients, on the CPU."""
    return (
        largest_difference([x.cpu() for x in got.outputs], expected.outputs),
        largest_difference([x.cpu() for x in got.gradients], expected.gradients),
    )


def options_for(device: torch.device) -> dict[str, Any]:
    """Return options of torch.compile: on a CPU, a policy is traced and differentiated, but not compiled."""
    return {"backend": "aot_eager"} if device.type == "cpu" else {}


def new_policy(kind: str, action: str, device: torch.device) -> Policy:
    """Return a new policy on a device."""
    torch.manual_seed(0)
    return make_policy(kind, 5, action_space(action)).to(device)


def network(kind: str, action: str, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Compare a policy, eager and compiled, with float64 on the CPU."""
    policy = new_policy(kind, action, device)
    exact = copy.deepcopy(policy).cpu().double()
    expected = results(exact, exact)
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        eager = differences(results(policy, policy), expected)
    fast, how = compiled(policy, dtype, device, options_for(device))
    found = differences(results(policy, fast), expected)
    figures = {"outputs": found[0], "gradients": found[1], "eager_outputs": eager[0], "eager_gradients": eager[1]}
    return figures | {"tolerances": TOLERANCES[dtype], "how": how, "ok": isinstance(fast, Compiled)}


def iterate(trainer: Trainer, iterations: int = 1) -> Trainer:
    """Run some iterations of a trainer, and return it."""
    for _ in range(iterations):
        trainer.rollout()
        trainer.update()
        trainer.steps += trainer.batch
    return trainer


def weights(trainer: Trainer) -> torch.Tensor:
    """Return all weights of a policy as one vector."""
    return torch.nn.utils.parameters_to_vector(trainer.policy.parameters()).detach().clone()


def ratio(make_run: MakeRun, *overrides: str) -> dict[str, Any]:
    """Check that a policy that does not learn finds its own actions as probable as when it took them."""
    trainer = make_run(*overrides, "trainer.learning_rate=0").trainer()
    trainer.rollout()
    statistics = trainer.update()
    figures = {"kl": statistics["policy/kl"], "clip_fraction": statistics["policy/clip_fraction"]}
    return figures | {"how": trainer.how, "ok": abs(figures["kl"]) < KL and figures["clip_fraction"] == 0}


def graphs(make_run: MakeRun, *overrides: str) -> dict[str, Any]:
    """Compare captured steps with plain ones: the weights after the first iteration, and after others if they agree."""
    plain = make_run(*overrides, "trainer.fast=off", "trainer.graphs=off").trainer()
    steps = make_run(*overrides, "trainer.fast=off", "trainer.graphs=on").trainer()
    after = []
    for _ in range(ITERATIONS):
        expected = weights(iterate(plain))
        after.append(float((weights(iterate(steps)) - expected).norm() / expected.norm()))
    captured = [step.graph is not None for _, step in steps.updater.steps.values()]
    ok = after[0] < SAME and (all(captured) or steps.device.type == "cpu")
    return {"differences": after, "captured": captured, "ok": ok}


def resume(make_run: MakeRun, *overrides: str) -> dict[str, Any]:
    """Compare a run that resumes from a state with the one that saved it, an iteration later."""
    whole = iterate(make_run(*overrides).trainer(), 3)
    rest = make_run(*overrides).trainer()
    rest.load_state_dict(copy.deepcopy(whole.state_dict()))
    difference = float((weights(iterate(rest)) - weights(iterate(whole))).abs().max())
    return {"largest_difference": difference, "bit_exact": difference == 0, "ok": difference < SAME}


def uneven(make_run: MakeRun, *overrides: str) -> dict[str, Any]:
    """Train with minibatches of two sizes."""
    run = make_run(*overrides)
    third = run.env.num_agents // 3 + 1
    minibatch = third * run.config.trainer.rollout_length
    trainer = iterate(make_run(*overrides, f"trainer.minibatch={minibatch}").trainer())
    sizes = sorted(trainer.updater.steps) if trainer.graphs else []
    return {"sizes": sizes, "ok": len(sizes) == 2 or not trainer.graphs}


def shapes(device: torch.device) -> dict[str, Any]:
    """Compute more shapes than torch compiles: beyond them the policy takes over, and says so once."""
    policy = new_policy("conv_lstm", "discrete", device)
    fast, how = compiled(policy, torch.float32, device, options_for(device))
    with warnings.catch_warnings(record=True) as caught, torch.no_grad():
        warnings.simplefilter("always")
        for steps in range(1, SHAPES + 1):
            obs = torch.zeros(steps, 8, policy.observation_size, dtype=torch.uint8, device=device)
            fast(obs, torch.zeros(steps, 8, dtype=torch.bool, device=device), policy.initial_state(8))
    said = [str(x.message) for x in caught if "plain torch from now on" in str(x.message)]
    return {"said": said, "how": how, "ok": len(said) == 1}


def checks(make_run: MakeRun, few: tuple[str, ...]) -> Iterator[tuple[str, Case]]:
    """Yield the name and the function of each check.

    Args:
        make_run: returns a run with the given overrides.
        few: overrides of runs that are checked.
    """
    device = torch.device(make_run(*few).config.trainer.device)
    for action in ACTIONS:
        form = (*few, f"action={action}")
        for name, check in (("ratio", ratio), ("graphs", graphs), ("resume", resume), ("uneven", uneven)):
            yield f"check {name} {action}", lambda check=check, form=form: check(make_run, *form)
    for dtype in TOLERANCES:
        for kind in POLICIES:
            name = f"check network {kind} {dtype}"
            yield name, lambda kind=kind, dtype=dtype: network(kind, "continuous", dtype, device)
    yield "check shapes", lambda: shapes(device)
