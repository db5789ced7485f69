"""Names that earlier versions used, each with its successor."""

import sys

SETTINGS = {
    "world.horizon": "world.max_episode_steps",
    "trainer.horizon": "trainer.rollout_length",
    "trainer.lanes": "trainer.env_splits",
    "policy.first_move": "policy.init_action_rms",
}
SCALARS = {"score": "env/score", "normalised_score": "env/normalised_score"}  # in TensorBoard's files
ARRAYS = {"wish": "desired_move", "met": "entered_cell"}  # arrays of a saved simulator state
MODULES = {
    "clips": "evaluation.clips",
    "command": "cli",
    "extras": "support.optional",
    "files": "support.atomic",
    "jit": "tasks",
    "jobs": "experiments.pool",
    "learn.archive": "support.archive",
    "learn.device": "learn.distributed",
    "learn.lane": "learn.collect",
    "learn.log": "learn.loggers.tensorboard",
    "learn.restore": "learn.checkpoint",
    "learn.rollout": "learn.collect",
    "learn.uncopied": "support.uncopied",
    "lifeline": "support.lifeline",
    "opponents": "runs.opponents",
    "output": "support.output",
    "pictures": "evaluation.figures",
    "plan": "experiments.study.plan",
    "policies": "runs.load",
    "plugins": "support.registry",
    "pretrained": "runs.load",
    "ratings": "evaluation.ratings",
    "records": "support.records",
    "results": "evaluation.scoring",
    "report_pictures": "experiments.sweep_plots",
    "run": "runs.build",
    "saved": "runs.schema",
    "scores": "evaluation.match",
    "setting": "evaluation.request",
    "sim.observe": "sim.window",
    "sim.picture": "sim.tasks",
    "sim.saved": "sim.snapshot",
    "startup": "support.startup",
    "stats": "experiments.stats",
    "study_config": "experiments.study.config",
    "study_report": "experiments.study.report",
    "study_scores": "experiments.study.scores",
    "sweep": "experiments.sweep",
    "transfer": "evaluation.transfer",
}


def successor(group: str, key: str) -> str | None:
    """Return the new name of a setting, without its group, or None if it was not renamed."""
    new = SETTINGS.get(f"{group}.{key}")
    return new and new.partition(".")[2]


class OldModules:
    """A module finder that refuses modules that have moved, and leaves all others to Python."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """Raise ImportError for a module that has moved."""
        package, _, old = name.partition(".")
        if package == "particle_grid" and old in MODULES:
            raise ImportError(f"{name} is now {package}.{MODULES[old]}: see CHANGELOG.md for its names.", name=name)


def refuse_old_modules() -> None:
    """Make the import of a module that has moved name its new place."""
    if OldModules not in sys.meta_path:
        sys.meta_path.insert(0, OldModules)  # first in the list, because a data folder has the name of one of them
