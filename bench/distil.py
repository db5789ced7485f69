"""What each head costs apart from exploration: one expert with discrete actions, distilled into every arm of a study.

    python bench/distil.py                                # the arms of conf/study/ladder.yaml; hours
    python bench/distil.py --arms discrete gaussian hurdle --tasks group --seeds 1 --out outputs/distil

The expert is the policy that ships for a task with discrete actions, in the world of the plan. Every arm gets its
network, so that hidden numbers and values are equal, and a new layer of outputs. Three questions follow:

1. Can the head hold what the expert does? The new layer is fitted to the expert's moves by maximum likelihood.
   `represented` is the normalised score of the result with sampled actions.
2. Does it stay? `learned` is the score after PPO has trained the result for more steps, with the plan's settings.
3. How good is the gradient of the policy? In the same states, each agent acts several times, with the same future
   randomness of the world. `signal` is the squared length of the mean gradient with respect to the hidden numbers,
   as a share of the mean squared length of a single one, without bias: 0 is noise only, 1 none.
"""

import argparse
import copy
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from interrupt import until_interrupted
from resumable import completed
from rich.console import Console
from torch import Tensor

from particle_grid.api import load_policy
from particle_grid.env import ParticleGrid
from particle_grid.evaluation.baseline import baseline_for
from particle_grid.evaluation.match import SEEDS, evaluate, steps_for
from particle_grid.evaluation.players import policy_player
from particle_grid.experiments.study.plan import Plan, find_plan, read_plan
from particle_grid.experiments.training import build, use_threads
from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.distributed import ProcessGroup
from particle_grid.learn.heads.beta import BetaHead
from particle_grid.learn.heads.choices import CategoricalHead
from particle_grid.learn.heads.normal import SquashedHead
from particle_grid.learn.policy import Policy
from particle_grid.runs.build import build_env
from particle_grid.settings.compose import composed
from particle_grid.settings.run_config import RunConfig
from particle_grid.support.errors import UserError, unknown

SETTLED = 128  # steps of the expert before its moves count
SHOWN = 64  # steps whose moves the layer is fitted to
FITTING = 2000  # steps of Adam
ROWS = 16384  # moves of each
TRIES = 64  # times that each agent acts in the same state
AHEAD = 24  # steps until values take over: with a discount of 0.9, rewards after these count a twelfth
MORE_STEPS = 2_000_000
INSIDE = 0.98  # what stands for a move of 1 where the distribution never reaches it


@dataclass(frozen=True)
class Shown:
    """What the expert did: hidden numbers f32[M, H], moves f32[M, A] in -1, 0, 1; and where it was at the end."""

    hidden: Tensor
    moves: Tensor
    env: ParticleGrid
    state: tuple[Tensor, ...]


@torch.no_grad()
def show(expert: Policy, env: ParticleGrid, seed: int) -> Shown:
    """Let the expert play from a reset, with continuous actions."""
    network = hidden_outputs(expert)
    generator = torch.Generator().manual_seed(seed)
    state = network.initial_state(env.num_agents)
    observations, _ = env.reset(seed)
    starts = np.ones(env.num_agents, bool)
    hidden, moves = [], []
    for step in range(SETTLED + SHOWN):
        h, _, state = network(tensor(observations), tensor(starts), state)
        move = expert.head.sample(expert.actor(h[0]), generator)[0].float() - 1
        hidden += [h[0]] if step >= SETTLED else []
        moves += [move] if step >= SETTLED else []
        observations, _, _, starts, _ = env.step(move.numpy())
    return Shown(torch.cat(hidden), torch.cat(moves), env, state)


def tensor(array: np.ndarray) -> Tensor:
    """Return an array [N, ...] as a tensor [1, N, ...]."""
    return torch.from_numpy(array.copy())[None]


def as_samples(policy: Policy, moves: Tensor) -> Tensor:
    """Return moves f32[M, A] as samples of a policy's head, of which some only come close."""
    head = policy.head
    if isinstance(head, SquashedHead):
        return torch.atanh(INSIDE * moves)
    if isinstance(head, BetaHead):
        return (INSIDE * moves + 1) / 2
    if head.dtype == torch.float32:
        return moves
    choices = head.nvec[0] if isinstance(head, CategoricalHead) else 3
    return ((moves + 1) * (choices - 1) / 2).to(head.dtype)


def distil(policy: Policy, expert: Policy, shown: Shown, seed: int) -> None:
    """Give a policy the expert's network, and fit its outputs to the expert's moves."""
    own = {name: x for name, x in policy.state_dict().items() if name.startswith(("actor.", "head."))}
    policy.load_state_dict(expert.state_dict() | own, strict=False)
    samples = as_samples(policy, shown.moves)
    layer = [*policy.actor.parameters(), *policy.head.parameters()]
    optimiser = torch.optim.Adam(layer, lr=1e-2)
    rate = torch.optim.lr_scheduler.LinearLR(optimiser, 1, 0, FITTING)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(FITTING):
        rows = torch.randint(len(samples), (ROWS,), generator=generator)
        logp, _ = policy.head.log_prob_and_entropy(policy.actor(shown.hidden[rows]), samples[rows])
        optimiser.zero_grad()
        (-logp.mean()).backward()
        optimiser.step()
        rate.step()


@torch.no_grad()
def tried(policy: Policy, shown: Shown, settings: TrainerConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Let each agent act in the state that the expert left, and return its sample there, and its advantage f32[N]."""
    env, state = copy.deepcopy(shown.env), shown.state
    observations, starts = env.observations, env.truncations
    samples, values = [], []
    gain, weight = torch.zeros(env.num_agents), torch.ones(env.num_agents)
    for _ in range(AHEAD):
        out, value, state = policy(tensor(observations), tensor(starts), state)
        samples.append(policy.head.sample(out[0], generator)[0])
        values.append(value[0])
        observations, rewards, _, starts, _ = env.step(as_vectors(policy.head.to_action(samples[-1])))
        gain += weight * settings.reward_scale * torch.from_numpy(rewards.copy())
        weight *= settings.gamma * torch.from_numpy(~starts)
    _, value, _ = policy(tensor(observations), tensor(starts), state)
    return samples[0], gain + weight * value[0] - values[0]


def as_vectors(actions: Tensor) -> np.ndarray:
    """Return actions, which may be discrete, for an environment with continuous ones."""
    return (actions if actions.is_floating_point() else actions.float() - 1).numpy()


def signal(policy: Policy, shown: Shown, settings: TrainerConfig, seed: int) -> float:
    """Return the share of the signal in the policy's gradient with respect to the hidden numbers, see this module."""
    generator = torch.Generator().manual_seed(seed)
    network = hidden_outputs(policy)
    with torch.no_grad():
        hidden = network(tensor(shown.env.observations), tensor(shown.env.truncations), shown.state)[0][0]
    gradients = []
    for _ in range(TRIES):
        sample, advantage = tried(policy, shown, settings, generator)
        leaf = hidden.clone().requires_grad_()
        logp, _ = policy.head.log_prob_and_entropy(policy.actor(leaf), sample)
        (logp * advantage).sum().backward()
        gradients.append(leaf.grad)
    return share_of_signal(torch.stack(gradients))


def share_of_signal(gradients: Tensor) -> float:
    """Return the squared length of the true gradient over that of a sample, of samples f32[K, N, H] for N agents.

    The mean of K samples also contains a K-th of their noise, which is subtracted.
    """
    count = len(gradients)
    single = gradients.square().sum(-1).mean()
    mean = gradients.mean(0).square().sum(-1).mean()
    return float((count * mean / single - 1) / (count - 1))


def hidden_outputs(policy: Policy) -> Policy:
    """Return a copy of a policy whose outputs are its hidden numbers."""
    network = copy.deepcopy(policy)
    network.actor = torch.nn.Linear(policy.hidden, policy.hidden, bias=False)
    torch.nn.init.eye_(network.actor.weight)
    return network


def settings_of(plan: Plan, task: str, overrides: list[str], seed: int) -> RunConfig:
    """Return the settings of an arm on a task of the plan."""
    given = [*plan.common, *plan.tasks[task], *overrides, f"seed={seed}", f"trainer.total_steps={MORE_STEPS}"]
    return composed(given)


def measured(plan: Plan, task: str, arm: str, seed: int) -> dict[str, Any]:
    """Return the row of an arm."""
    expert = load_policy(task, "discrete").policy
    world = build_env(settings_of(plan, task, plan.arms[plan.reference_scores].overrides, seed))
    baseline = baseline_for(world, Console(stderr=True), SEEDS, steps_for(world))
    shown = show(expert, world, seed)
    run = build(settings_of(plan, task, plan.arms[arm].overrides, seed), None, ProcessGroup())
    use_threads(run.config.trainer)
    distil(run.policy, expert, shown, seed)

    def score(greedy: bool) -> float:
        return float(baseline.normalise(evaluate(run.env, policy_player(run.policy, greedy))).mean())

    row = {"task": task, "arm": arm, "seed": seed, "represented": score(False), "represented, greedy": score(True)}
    row["signal"] = signal(run.policy, shown, run.config.trainer, seed)
    run.trainer().run()
    return row | {"learned": score(False), "learned, greedy": score(True)}


def table(rows: list[dict[str, Any]]) -> str:
    """Return a Markdown table with the means over seeds."""
    names = ["represented", "represented, greedy", "signal", "learned", "learned, greedy"]
    lines = ["| task | arm | seeds | " + " | ".join(names) + " |", "|---" * (len(names) + 3) + "|"]
    for task, arm in dict.fromkeys((row["task"], row["arm"]) for row in rows):
        mine = [row for row in rows if (row["task"], row["arm"]) == (task, arm)]
        cells = [f"{np.mean([float(row[name]) for row in mine]):.3f}" for name in names]
        lines.append("| " + " | ".join([f"`{task}`", f"`{arm}`", str(len(mine)), *cells]) + " |")
    return "\n".join(lines) + "\n"


def chosen(kind: str, names: list[str] | None, known: Iterable[str]) -> list[str]:
    """Return the names of a command line, or all.

    Raises:
        UserError: for one that is not in the plan.
    """
    for name in names or []:
        if name not in known:
            raise UserError(unknown(f"{kind} {name!r} in the plan", name, known))
    return names or list(known)


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", default="ladder", help="a plan of conf/study, or the path of one")
    parser.add_argument("--arms", nargs="+", help="(default: all of the plan)")
    parser.add_argument("--tasks", nargs="+", help="(default: all of the plan)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("outputs/distil"), help="folder for the results")
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error(f"--seeds {args.seeds}: give 1 or more")
    return args


def main() -> None:
    """Measure the arms that are not measured yet, and print a table of all."""
    args = options()
    path = find_plan(args.plan)
    plan = read_plan(path)
    tasks, arms = chosen("task", args.tasks, plan.tasks), chosen("arm", args.arms, plan.arms)
    path = args.out / f"{path.stem}.csv"
    wanted = itertools.product(tasks, arms, range(args.seeds))
    rows = completed("Distilling", path, ("task", "arm", "seed"), wanted, partial(measured, plan))
    path.with_suffix(".md").write_text(table(rows), "utf-8")
    print(table(rows))


if __name__ == "__main__":
    until_interrupted(main)
