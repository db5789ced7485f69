"""One training run from its settings to its results: build, train, evaluate, save."""

import json
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numba
import numpy as np
import torch
from rich.console import Console

from particle_grid.env import ParticleGrid
from particle_grid.evaluation import match, record, scoring
from particle_grid.evaluation.baseline import Baseline, baseline_for, stored
from particle_grid.evaluation.clips import TAG, Clips
from particle_grid.experiments.loggers import check_installed, open_loggers
from particle_grid.experiments.pruning import pruning
from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.dashboard import Dashboard
from particle_grid.learn.distributed import ProcessGroup, choose_device, joined
from particle_grid.learn.fast import cores, thread_count
from particle_grid.learn.loggers.several import Loggers
from particle_grid.learn.policy import Policy
from particle_grid.learn.trainer import Result, ScalarLog, Trainer, check_minibatch
from particle_grid.runs.build import (
    build_env,
    build_env_splits,
    build_policy,
    opponents_for,
    second_team,
)
from particle_grid.runs.folder import RunFolder
from particle_grid.runs.load import Checkpoint
from particle_grid.runs.opponents import check_two_teams, opponent_agents
from particle_grid.runs.results import Results
from particle_grid.settings.invocation import Invocation
from particle_grid.settings.run_config import RunConfig
from particle_grid.sim import tasks
from particle_grid.support.errors import UserError

if TYPE_CHECKING:
    from particle_grid.browser.live import Live

TORCH_THREADS = torch.get_num_threads()  # the default, before a run in this process changes the number
HYPERPARAMETERS = [  # logged for every run, in addition to those that a command line names
    *("task.name", "action.name", "policy.name", "policy.hidden", "policy.head", "seed", "world.agents"),
    *(f"trainer.{key}" for key in ("total_steps", "learning_rate", "entropy_coef", "gamma", "gae_lambda")),
    *(f"trainer.{key}" for key in ("rollout_length", "minibatch", "epochs", "optimiser")),
]


@contextmanager
def prepared(config: RunConfig) -> Iterator[ProcessGroup]:
    """Yield the processes that train together, once they have what they need for it.

    Raises:
        UserError: for a logger that is not installed, or processes that do not find each other or differ in settings.
    """
    check_installed(config)
    use_threads(config.trainer)
    with joined(choose_device(config.trainer.device).type == "cuda") as group:
        check_alike(config, group)
        yield group


def check_alike(config: RunConfig, group: ProcessGroup) -> None:
    """Raise UserError if the first process has other settings: their weights would differ, without a sign of it."""
    mine = {key: json.dumps(value, default=str) for key, value in config.flat().items()}
    firsts = json.loads(group.share(json.dumps(mine)))
    for key in mine | firsts:
        if mine.get(key) != firsts.get(key):
            raise UserError(
                f"Process {group.rank} has {key}={mine.get(key)}, and the first one has {key}={firsts.get(key)}: start "
                f"all processes with the same command."
            )


def train(
    config: RunConfig, call: Invocation, saved: Checkpoint | None, group: ProcessGroup, watch: bool = False
) -> float | None:
    """Train a policy, alone or as the first process of several, and evaluate it.

    Args:
        config: the settings of the run.
        call: where the run belongs, and what its command line was.
        saved: the checkpoint to continue from, if any.
        group: the processes. The others call `assist`.
        watch: whether a page on this machine shows the run.

    Returns:
        The mean normalised score of sampled actions; None for a run that was pruned or has no evaluations.

    Raises:
        KeyboardInterrupt: for Ctrl-C and signals to end, once the run has saved.
    """
    run = build(config, saved, group)
    folder = RunFolder(call.folder)
    live = shown_live(run) if watch else None
    with console_for(folder, call) as console, live or nullcontext():
        return lead(run, folder, call, console, live)


def assist(config: RunConfig, saved: Checkpoint | None, group: ProcessGroup) -> None:
    """Take part in the learning of a run that another process leads, and write no files."""
    build(config, saved, group).trainer().run()


def use_threads(settings: TrainerConfig) -> None:
    """Give the simulator and the policy the number of threads in the settings, or a share of this machine's cores."""
    numba.set_num_threads(min(thread_count(settings.threads), numba.config.NUMBA_NUM_THREADS))
    torch.set_num_threads(settings.threads or min(TORCH_THREADS, cores()))


@dataclass(frozen=True)
class Run:
    """What a run is made of. splits: the parts of `env` that training uses."""

    config: RunConfig
    env: ParticleGrid
    splits: list[ParticleGrid]
    policy: Policy
    saved: Checkpoint | None
    group: ProcessGroup

    @property
    def first_step(self) -> int:
        """Agent-steps done before this process continues the run."""
        return self.saved.steps if self.saved else 0

    def trainer(self, **options: object) -> Trainer:
        """Return the trainer of the run, in the state of the checkpoint if there is one. options: of `Trainer`."""
        settings = self.config.trainer
        teams = {"opponents": opponents_for(self.policy, settings), "second_team": second_team}
        trainer = Trainer(self.splits, self.policy, settings, group=self.group, **teams, **options)  # type: ignore[arg-type]
        if self.saved:
            trainer.load_state_dict(dict(self.saved.trainer))
        return trainer


def build(config: RunConfig, saved: Checkpoint | None, group: ProcessGroup) -> Run:
    """Return a run that is ready to train.

    Raises:
        UserError: for whatever the trainer would refuse, which is made only after files have been written.
    """
    env = build_env(config)
    splits = build_env_splits(config, env)
    check_minibatch(config.trainer, group)
    check_two_teams(env, "second_team_weight", config.trainer.second_team_weight)
    for split in splits:
        opponent_agents(split, config.trainer)
    policy = build_policy(config, saved.weights if saved else None)
    return Run(config, env, splits, policy, saved, group)


def shown_live(run: Run) -> "Live":
    """Return the page of a run."""
    from particle_grid.browser.live import Live  # now: it takes a fifth of a second to import

    return Live(run.config, run.policy, run.first_step)


def lead(run: Run, folder: RunFolder, call: Invocation, console: Console, live: "Live | None") -> float | None:
    """Train, show, save and evaluate; return the final score."""
    say = partial(console.print, soft_wrap=True)
    describe(run, folder, call)
    seeds = match.seeds(run.config.evaluations)
    steps = match.steps_for(run.env)
    measured = partial(baseline_for, run.env, console, seeds or match.SEEDS, steps)
    # Others would wait in their first update, and give up after some minutes, while this process measured a baseline.
    baseline = measured() if run.group.size == 1 else stored(run.env, seeds or match.SEEDS, steps)
    introduce(run, folder, say)
    if live:
        say(f"To watch, in a browser on this machine: {live.address}")
    with (
        saying_how_to_resume(folder, run.config, say, call),
        open_loggers(run.config, folder, call, run.first_step, say) as loggers,
    ):
        loggers.hyperparameters(hyperparameters(run.config, call))
        result = learn(run, folder, call, baseline, loggers, console, [live] if live else [])
        if result.reason:
            folder.write_pruned(result.reason)
            say(f"Pruned: {result.reason}")
            return None
        if result.interrupted:
            say(f"Stopped at {result.steps} steps.")
            raise KeyboardInterrupt(result.signal or signal.SIGINT)
        results = Results()
        if seeds:
            results = scoring.evaluate_policy(run.env, run.policy, baseline or measured(), console, seeds, steps)
        results.write(folder.results)
        if run.config.clips:
            film(run, results, result.steps, folder)
            loggers.log_gif(TAG, folder.video.read_bytes(), result.steps)
        loggers.log(result.steps, {f"eval/{player}": score for player, score in final_scores(results).items()})
        loggers.finished()
    conclude(run, folder, results, result.steps, steps, console)
    return results.mean("sampled")


def describe(run: Run, folder: RunFolder, call: Invocation) -> None:
    """Write what the run is, which for a resumed one differs from Hydra's own notes."""
    folder.write_config(run.config)
    if not folder.overrides.exists():  # a run that is resumed in its own folder keeps what it was started with
        folder.write_overrides(call.overrides)


def introduce(run: Run, folder: RunFolder, say: Callable[[str], None]) -> None:
    """Print what is about to be trained."""
    total = run.config.trainer.total_steps
    if run.first_step > total:
        asked = f"trainer.total_steps={total}"
        say(f"Trained for {run.first_step} steps, more than {asked}: the policy is only evaluated.")
    size = sum(parameter.numel() for parameter in run.policy.parameters())
    say(f"{run.config.name}: {run.env.num_agents} agents, {size} parameters, in {folder.path}")
    say("The first figures appear after one rollout. The first run on a machine compiles for a minute before that.")


def learn(
    run: Run,
    folder: RunFolder,
    call: Invocation,
    baseline: Baseline | None,
    loggers: Loggers,
    console: Console,
    watchers: Sequence[ScalarLog],
) -> Result:
    """Train until the budget is used up, or an interruption. watchers: loggers besides those of the settings."""
    total = run.config.trainer.total_steps
    with (
        Dashboard(total, run.first_step, console) as dashboard,
        Clips(run.splits[0], loggers, run.config.clips, total, run.first_step) as clips,
    ):
        judges = [pruning(call.trial, total)] if call.trial else []
        trainer = run.trainer(
            loggers=[loggers, dashboard, clips, *watchers, *judges],
            path=folder.checkpoint,
            run_config=run.config.to_dict(),
            normalise=normaliser(run.env, baseline),
            watch=clips.watch,
        )
        console.print(trainer.how, soft_wrap=True)
        if run.first_step < total:
            folder.remove_results()  # the results of an earlier end do not describe further training
        return trainer.run()


def normaliser(env: ParticleGrid, baseline: Baseline | None) -> Callable[[float], float] | None:
    """Return the function from score to normalised score.

    It is None for two teams, whose self-play shows no success, and before the baseline is known.
    """
    if env.task.teams > 1 or baseline is None:
        return None
    return lambda score: float(baseline.normalise(np.array([score])))


def film(run: Run, results: Results, trained: int, folder: RunFolder) -> None:
    """Film the policy before and after training."""
    device = next(run.policy.parameters()).device
    untrained = build_policy(run.config).to(device)
    record.record_learning(run.env, untrained, run.policy, folder.video, record.caption(trained, results))


def conclude(run: Run, folder: RunFolder, results: Results, trained: int, steps: int, console: Console) -> None:
    """Show the results of episodes of `steps` after training for `trained` agent-steps, and name what was saved."""
    if results.scores:
        scoring.show_results(run.env, results, console, steps)
        for line in scoring.verdict(run.env, results, trained, usual_steps(run.config)):
            console.print(line, soft_wrap=True)
    films = [folder.video] if run.config.clips else []
    for path in (folder.checkpoint, folder.results, *films):
        console.print(f"Saved: {path}", soft_wrap=True)
    if "tensorboard" in run.config.logger:
        console.print("To watch: tensorboard", f"--logdir {folder.path.parent}", soft_wrap=True)


def usual_steps(config: RunConfig) -> int:
    """Return the agent-steps that the task of a run is trained for by default."""
    settings = getattr(tasks.load(config.task), "settings", {})
    return int(settings.get("trainer", {}).get("total_steps", TrainerConfig.total_steps))


def final_scores(results: Results) -> dict[str, float]:
    """Return the mean normalised scores of the policy."""
    means = {player: results.mean(player) for player in ("sampled", "greedy")}
    return {player: mean for player, mean in means.items() if mean is not None}


@contextmanager
def saying_how_to_resume(
    folder: RunFolder, config: RunConfig, say: Callable[[str], None], call: Invocation
) -> Iterator[None]:
    """Print how to resume a run that is interrupted in this context, if it has a checkpoint."""
    try:
        yield
    except KeyboardInterrupt:
        if folder.checkpoint.exists():
            own = "the same command" if call.repeatable else resume_arguments(folder, config)
            say(f"To resume{' this run only' if call.swept else ''}: {own}")
        raise


def resume_arguments(folder: RunFolder, config: RunConfig) -> str:
    """Return the arguments of train that resume a run, as one types them: in its own folder if services know it."""
    places = config.places()
    allow = f" allow=[{','.join(places)}]" if places else ""
    own = f" {folder.folder_override()}" if folder.service_runs.exists() else ""
    return folder.resume_override() + allow + own


def hyperparameters(config: RunConfig, call: Invocation) -> Mapping[str, str | bool | float]:
    """Return what loggers show of a run: the usual settings, and those that its command line names."""
    values = config.flat()
    named = [key for key in call.chosen() if key in values and key not in HYPERPARAMETERS]
    shown = {key: values[key] for key in [*HYPERPARAMETERS, *named] if key in values}
    return {key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in shown.items()}


@contextmanager
def console_for(folder: RunFolder, call: Invocation) -> Iterator[Console]:
    """Yield the console of a run: the terminal, or a file if other runs print at the same time.

    Markup is off, because names and paths may look like rich's markup.
    """
    if not call.side_by_side:
        yield Console(markup=False)
        return
    with folder.output.open("a", encoding="utf-8") as file:
        yield Console(file=file, width=120, markup=False)
