"""What the commands share: how they end, and for those of Hydra a decorator and a callback.

Only this file knows Hydra's state.
"""

import argparse
import functools
import importlib
import inspect
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from particle_grid import __version__
from particle_grid.learn.ranks import ranks
from particle_grid.runs.folder import HYDRA, OccupiedError, RunFolder, typed
from particle_grid.settings import help as help  # registers what help texts call
from particle_grid.settings import resolvers
from particle_grid.settings.arguments import prepared
from particle_grid.settings.checks import check_places
from particle_grid.settings.compose import HYDRA_1_3, VERSION_BASE, config_folder, register_groups
from particle_grid.settings.errors import explain, print_error
from particle_grid.settings.invocation import AUTO, TRIAL, Invocation, Trial
from particle_grid.support import lifeline, registry
from particle_grid.support.errors import UserError, refusing_exit
from particle_grid.support.output import lasting_output

Main = Callable[[DictConfig, Invocation], Any]
VERSION = f"particle_grid {__version__}"
# What the `_target_` of a config may name. Hydra 1.3 asks for no such list, and 1.4 warns without one.
TARGETS = ("particle_grid.cli.*", "hydra_plugins.*", "optuna.samplers.*", "optuna.pruners.*")
TRUSTED: dict[str, Any] = {} if HYDRA_1_3 else {"execution_whitelist": TARGETS}


# conf/hydra/launcher changes some defaults of a plugin's config of the same name, and means to be checked against it.
warnings.filterwarnings("ignore", "(?s).*is validated against ConfigStore schema with the same name")


def notes(*, _root_: DictConfig) -> str | None:
    """Return the folder of Hydra's notes in a run's folder; None, so that it writes none, for a run that has ended."""
    info = _root_.hydra.runtime
    ended = not OmegaConf.is_missing(info, "output_dir") and RunFolder(Path(info.output_dir)).ended
    return None if ended else HYDRA


resolvers.register(notes)


class JobError(RuntimeError):
    """A job of a sweep failed, and its reason has been reported."""


def command(config_name: str) -> Callable[[Main], Callable[[], None]]:
    """Turn `main(config, invocation)` into `main()`, which reads conf/{config_name}.yaml and the command line.

    Exit codes: 0 done; 1 an error (one line on stderr); 130 Ctrl-C; 128 plus its number for another signal, after which
    a sweep has let its runs save. In a sweep (-m) a failing job is reported, its reason stays in error.txt in its
    folder, and the others still run; a sweeper gets what `main` returns. Bugs come with their traceback.
    """

    def decorate(main: Main) -> Callable[[], None]:
        job = HydraJob(main)
        run = hydra.main(config_path=str(config_folder()), config_name=config_name, **VERSION_BASE, **TRUSTED)(job)

        @functools.wraps(job)
        @lasting_output()
        def entry() -> None:
            with ending_in_one_line():
                _prepare_arguments()
                register_groups(sys.argv[1:], training=config_name == "train")
                run()

        return entry

    return decorate


@contextmanager
def ending_in_one_line(interrupted: str = "interrupted") -> Iterator[None]:
    """Turn an error or a signal that ends a command into a line on stderr and an exit code, see `command`."""
    try:
        with lifeline.interruptible():
            yield
    except JobError:
        sys.exit(1)
    except Exception as error:
        sys.exit(print_error(error))
    except KeyboardInterrupt as interrupt:
        print(interrupted, file=sys.stderr)
        sys.exit(lifeline.exit_code(interrupt))


def parser_of(command: str, description: str, examples: str) -> argparse.ArgumentParser:
    """Return the parser of a command that is not one of Hydra's, without its own arguments.

    Args:
        command: as it is typed, such as `python -m particle_grid.report`.
        description: what it does.
        examples: lines with commands.
    """
    parser = argparse.ArgumentParser(
        prog=as_typed(command),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=as_typed(f"examples:\n{examples}"),
        description=description,
    )
    parser.add_argument("--version", action="version", version=VERSION)
    return parser


def as_typed(text: str) -> str:
    """Return a help text with the commands in the form that was typed, such as `particle-grid report`."""
    typed = re.match(r"(particle-grid.)\w+$", Path(sys.argv[0]).stem)
    return text.replace(f"python -m {__package__}.", typed[1]) if typed else text


def _prepare_arguments() -> None:
    """Adapt the command line and the environment to Hydra.

    Raises:
        UserError: for arguments that are misused, and for a sweep in several processes.
    """
    if "--version" in sys.argv:  # Hydra's own option of this name prints the version of Hydra
        print(VERSION)
        sys.exit(0)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises errors instead of printing them
    # Hydra's own getter prints another line about a failed job, which has already been reported.
    JobReturn.return_value = JobReturn.return_value.getter(_job_result)  # type: ignore[attr-defined, method-assign]
    sys.argv[1:] = prepared(sys.argv[1:])
    if ranks().rank:  # only the first process has a folder
        sys.argv += ["hydra.run.dir=.", "hydra.output_subdir=null"]
    if {"-m", "--multirun"} & set(sys.argv):
        refuse_several_processes("-m")


def refuse_several_processes(what: str) -> None:
    """Raise UserError if this is one of several processes that torchrun or srun started.

    Args:
        what: makes many runs, as in `-m`.
    """
    if (size := ranks().size) > 1:
        raise UserError(
            f"{what} makes many runs, and torchrun and srun start {size} processes that share a single one: use one "
            f"process, and choose a launcher that distributes the runs."
        )


class HydraJob:
    """The function that Hydra calls for each job of a command. A failed job is reported, with the reason in its folder.

    It is pickled as the name of its command, so that a worker imports the command. Pickled by value, like functions of
    `__main__`, it would contain globals of this process, such as a number of threads that the worker does not have.
    """

    def __init__(self, main: Main) -> None:
        functools.update_wrapper(self, main)
        self.main = main

    def __call__(self, config: DictConfig) -> Any:
        try:
            # Output here too: a launcher may run jobs in other processes.
            values: Any = OmegaConf.to_container(config)
            check_places(values.get("allow"))
            with lasting_output(), registry.only(_texts(values)), refusing_exit():
                return self.main(config, _invocation(values))
        except KeyboardInterrupt:
            self._interrupted(_invocation(values))
            raise
        except Exception as error:
            self._failed(error)

    def _interrupted(self, call: Invocation) -> None:
        """Say how to resume a sweep, or what is left of a run that was interrupted before its first checkpoint."""
        info = HydraConfig.get()
        folder = RunFolder(Path(info.runtime.output_dir))
        if call.swept and not call.side_by_side:
            print(f"To resume the sweep: the same command with {_sweep_override(info)}.")
        if call.swept or not info.output_subdir or folder.checkpoint.exists():
            return
        if folder.remove_unlearnt(info.output_subdir):
            print(f"Nothing was learnt yet, so {folder.path} is removed.")
        elif call.repeatable:
            print(f"No checkpoint was saved in {folder.path}: the same command starts this run again.")
        else:
            print(f"No checkpoint was saved in {folder.path}, so this run cannot be resumed.")

    def _failed(self, error: Exception) -> None:
        """Report an error. Exits, or raises JobError in a sweep: Hydra then continues with the next job."""
        info = HydraConfig.get()
        folder = RunFolder(Path(info.runtime.output_dir))
        # None if the folder belongs to another run.
        notes = None if isinstance(error, OccupiedError) else info.output_subdir
        if info.mode != RunMode.MULTIRUN:
            if notes:
                folder.remove_unlearnt(notes)
            sys.exit(print_error(error))  # for an exception, Hydra would print another line
        print_error(error, f"job {info.job.num} ({info.job.override_dirname})")
        if notes:
            folder.write_error(error)
        raise JobError(explain(error)) from None

    def __reduce__(self) -> tuple[Any, ...]:
        return _job_of, (f"{__package__}.{inspect.getmodulename(inspect.getfile(self.main))}",)


def _job_of(module: str) -> Any:
    return importlib.import_module(module).main.__wrapped__


def _invocation(config: dict[str, Any]) -> Invocation:
    """Return what Hydra knows about the call of this job, whose config is given."""
    info: Any = HydraConfig.get()
    overrides: Any = OmegaConf.to_container(info.overrides.task)  # as written: nothing is resolved
    swept = info.mode == RunMode.MULTIRUN
    number = info.job.env_set.get(TRIAL.rpartition(".")[2])
    trial = None
    if number is not None:
        trial = Trial(int(number), Path(info.sweep.dir), info.sweeper.storage, info.sweeper.pruner)
    return Invocation(
        folder=Path(info.runtime.output_dir),
        overrides=tuple(overrides),
        swept=swept,
        side_by_side=swept and info.runtime.choices["hydra/launcher"] != "basic",
        repeatable=config.get("resume") == AUTO,
        trial=trial,
    )


def _sweep_override(info: Any) -> str:
    """Return the override that lets a command resume a sweep, as one types it."""
    return typed("hydra.sweep.dir", Path(info.sweep.dir))


def _job_result(job: Any) -> Any:
    """Return the result of a job, or raise its error."""
    if job.status == JobStatus.FAILED:
        raise job._return_value
    return job._return_value


def _texts(value: Any) -> Iterator[str]:
    """Yield every string in a config, and with them the places of classes that it names."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)
    elif isinstance(value, str):
        yield value


class Announce(Callback):
    """Prints where the runs of a sweep go, before the first of them.

    It also removes links from the places where Hydra is about to write, since Hydra would follow them.
    """

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        with suppress(OmegaConfBaseException):  # an invalid name, which Hydra reports next
            RunFolder(Path(config.hydra.run.dir)).unlink_links(config.hydra.output_subdir)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        folder = config.hydra.sweep.dir
        for run in Path(folder).glob("*"):
            RunFolder(run).unlink_links(config.hydra.output_subdir)
        logging.getLogger("hydra").info(  # like Hydra's own messages
            f"Runs go to {folder}. To resume after an interruption: the same command with "
            f"{_sweep_override(config.hydra)}. "
            f"A table of them, at any time: python -m particle_grid.report {folder}"
        )
