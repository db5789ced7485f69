"""What all entry points share: Hydra, with errors that say in one sentence what is wrong and what to do."""

import contextlib
import difflib
import functools
import hashlib
import importlib
import inspect
import json
import os
import re
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar, cast

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from particle_grid import plugins
from particle_grid.sim import tasks

T = TypeVar("T")
PACKAGE = Path(__file__).parent
PLACE = re.compile(r"[\w.]*:\w*")  # of a class: my_package.my_module:MyClass
PLUGINS = {  # choices that come with a plugin of Hydra
    "hydra/launcher/submitit_slurm": "hydra-submitit-launcher",
}
LOCK = ".lock"  # held in the folder of a run by the process that trains there
TRACEBACK = "PARTICLE_GRID_TRACEBACK"  # environment variable: 1 shows where an error comes from
# Errors that a user can cause; any other kind is a bug.
EXPECTED = (ValueError, TypeError, OSError, RuntimeError, MemoryError, HydraException, OmegaConfBaseException)


class JobError(RuntimeError):
    """A job of a sweep failed, and its reason has been reported."""


class OccupiedError(ValueError):
    """A folder belongs to another run, of which nothing is touched: not even why is written there. Only Hydra has by
    then left in .hydra what was asked for."""


def digest(*, _root_: DictConfig) -> str:
    """Eight letters that stand for a config, without Hydra's part of it: the same for the same config."""
    config = OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key != "hydra"])
    text = json.dumps(OmegaConf.to_container(config, resolve=True), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def run_name(name: str, resume: str | None) -> str:
    """What a run's folder is named after: its config, or for one that goes on the folder it comes from."""
    old = Path(resume).resolve().parent.name if resume else ""
    return re.sub(r"^\d{4}-\d\d-\d\d_[\d-]+_", "", old) or name


# At import, so that processes that only unpickle a job have them.
OmegaConf.register_new_resolver("digest", digest, replace=True)
OmegaConf.register_new_resolver("run_name", run_name, replace=True)
OmegaConf.register_new_resolver("plain", lambda name: str(name).rpartition(":")[2], replace=True)  # a class, no place
# conf/hydra/launcher changes some defaults of a plugin's config of the same name, and means to be checked against it.
warnings.filterwarnings("ignore", "(?s).*is validated against ConfigStore schema with the same name")


def config_folder() -> Path:
    """The folder of the configs: inside an installed package, else beside it in the repository."""
    packaged = PACKAGE / "conf"
    return packaged if packaged.is_dir() else PACKAGE.parent / "conf"


def register_plugins(arguments: Iterable[str] = ()) -> None:
    """Lets tasks and policies without a YAML file in conf/ be named on the command line, with their classes' defaults:
    those that are registered, and those whose place `module:Class` stands in the arguments.

    Raises ValueError where there is no such class."""
    settings = [argument.partition("=") for argument in arguments]
    named = {group: PLACE.findall(" ".join(value for key, _, value in settings if key == group)) for group in DEFAULTS}
    registered = {"task": tasks.names(), "policy": [*plugins.registered("policy")]}
    for group, defaults in DEFAULTS.items():
        for name in [*registered[group], *named[group]]:
            if (config_folder() / group / f"{name}.yaml").exists():
                continue
            # A file without its class is no matter until it is asked for.
            with contextlib.nullcontext() if name in named[group] else contextlib.suppress(ValueError):
                node = defaults(name)
                ConfigStore.instance().store(group=group, name=name, node=node, package="_global_")


def _task_defaults(name: str) -> dict[str, Any]:
    kind = tasks.load(name)
    return {"task": {"name": name} | asdict(kind())} | getattr(kind, "settings", {})


def _policy_defaults(name: str) -> dict[str, Any]:
    from particle_grid.learn.policy import options_of, policy_class  # torch: only where it is needed

    return {"policy": {"name": name} | options_of(policy_class(name))}


DEFAULTS = {"task": _task_defaults, "policy": _policy_defaults}  # by group: what a choice without a file stands for


class Job:
    """What Hydra calls for each job of a command. A job that fails is reported, and its reason stays in its folder.

    It is pickled as the name of its command, so that a worker imports the command. Pickled by value, as a function of
    `__main__` is, it would take globals of this process along, such as a number of threads that the worker lacks."""

    def __init__(self, main: Callable[[DictConfig], Any]) -> None:
        functools.update_wrapper(self, main)
        self.main = main

    def __call__(self, config: DictConfig) -> Any:
        try:
            return self.main(config)
        except Exception as error:
            info = HydraConfig.get()
            notes = None if isinstance(error, OccupiedError) else info.output_subdir  # in a folder of the run's own
            if info.mode != RunMode.MULTIRUN:
                if notes:
                    tidy(Path(info.runtime.output_dir), notes)
                sys.exit(report(error))  # Hydra would print a line of its own about an exception
            report(error, f"job {info.job.num} ({info.job.override_dirname})")
            if notes:
                record(error, Path(info.runtime.output_dir))
            raise JobError(explain(error)) from None  # Hydra goes on with the next job and raises this at the end

    def __reduce__(self) -> tuple[Any, ...]:
        return _job_of, (f"{__package__}.{inspect.getmodulename(inspect.getfile(self.main))}",)


def _job_of(module: str) -> Any:
    return importlib.import_module(module).main.__wrapped__


def command(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Decorator: `main(config)` becomes `main()`, which reads conf/{config_name}.yaml and the command line.

    Exit codes: 0 done, 1 an error (one line on stderr), 130 Ctrl-C, 128 more than its number for another signal that a
    sweep has answered by letting its runs save. In a sweep (-m) a failing job is reported, its reason stays in
    error.txt in its folder, and the others still run; a sweeper gets what `main` returns. An exception of a kind that
    only bugs raise comes with its traceback."""

    def decorate(main: Callable[[DictConfig], Any]) -> Callable[[], None]:
        job = Job(main)
        run = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=config_name)(job)

        @functools.wraps(job)
        def entry() -> None:
            os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us instead of being printed
            # Hydra's "+" adds keys to a config. Here that is only ever a misspelt key: let it be found.
            sys.argv[1:] = [re.sub(r"^\+{1,2}(?!hydra[./])", "", argument) for argument in sys.argv[1:]]
            if os.environ.get("RANK", "0") != "0":  # torchrun: only the first of the processes has a folder
                sys.argv += ["hydra.run.dir=.", "hydra.output_subdir=null"]
            try:
                if any(argument.startswith("--e") for argument in sys.argv):
                    raise ValueError("--experimental-rerun unpickles a file, which could run anything: leave it out.")
                if {"-m", "--multirun"} & set(sys.argv) and os.environ.get("WORLD_SIZE", "1") != "1":
                    raise ValueError("-m cannot be: torchrun shares one run out, and -m makes many; use one of them.")
                register_plugins(sys.argv[1:])
                run()
            except JobError:
                sys.exit(1)
            except Exception as error:
                sys.exit(report(error))
            except KeyboardInterrupt as interrupt:
                print("interrupted", file=sys.stderr)
                sys.exit(128 + (interrupt.args[0] if interrupt.args else signal.SIGINT))

        return entry

    return decorate


def report(error: Exception, where: str = "") -> int:
    """Prints an error on stderr, with its traceback if asked for or unexpected; returns the exit code 1."""
    if os.environ.get(TRACEBACK) == "1" or not isinstance(error, EXPECTED):
        traceback.print_exception(error)
    print(f"error{' in ' + where if where else ''}: {explain(error)}", file=sys.stderr)
    return 1


def record(error: Exception, folder: Path) -> None:
    """Leaves the reason why a run failed in its folder: where it came from, and the sentence about it as last line."""
    text = "".join(traceback.format_exception(error)) + f"error: {explain(error)}\n"
    (folder / "error.txt").write_text(text, "utf-8")


def tidy(folder: Path, notes: str) -> None:
    """Takes away the folder of a run that was refused before it began, in which there are only Hydra's notes, and a
    lock that nobody holds."""
    if folder.is_dir() and {notes} <= {path.name for path in folder.iterdir()} <= {notes, LOCK}:
        shutil.rmtree(folder / notes)
        (folder / LOCK).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the folder of somebody else, who stands in it
            folder.rmdir()


def explain(error: Exception) -> str:
    """What is wrong and what to do, in one line."""
    cause = error.__cause__ if isinstance(error, HydraException) and error.__cause__ else error
    line = " ".join(str(cause).split())
    match cause:
        case ConfigKeyError() | ConfigAttributeError() if isinstance(cause.parent_node, DictConfig):
            return unknown_key(cause.parent_node, str(cause.key))
        case MissingMandatoryValue():
            return f"{cause.full_key} must be given: add {cause.full_key}=VALUE to the command line."
        case InterpolationKeyError() if key := re.search(r"Interpolation key '([\w.]+)' not found", line):
            return f"{key[1]} is needed, and there is none: choose one, as in {key[1].partition('.')[0]}=NAME."
        case MemoryError() | RuntimeError() if isinstance(cause, MemoryError) or "allocate memory" in line:
            return (
                f"There is not enough memory for runs of this size ({line}): lower world.worlds, world.agents, "
                f"trainer.horizon or policy.hidden."
            )
        case MissingConfigException(missing_cfg_file=str(path), options=[*options]):
            group, _, choice = path.rpartition("/")
            if path in PLUGINS:
                return f'{path} needs {PLUGINS[path]}, which is not installed: pip install "particle-grid[sweep]"'
            return unknown(f"{group} {choice!r}", choice, options)
        case OverrideParseException():
            return f"{cause.override!r} cannot be read: write key=value, and quote a value with special characters."
        case OSError(filename=str(file), strerror=str(reason)):
            return f"{file} cannot be used ({reason}): choose another path, or see to that one."
        case Exception() if line.startswith("Config group override must be"):  # Hydra says it, of any kind
            return "A group of the config cannot be null: choose one, as in task=NAME, or leave it out."
        case HydraException() | OmegaConfBaseException():
            return f"{line} (--help shows what there is)"
        case RuntimeError() if line.startswith("Unknown plugin class"):
            return f'A plugin is needed that is not installed: pip install "particle-grid[sweep]" ({line})'
    place = traceback.extract_tb(cause.__traceback__)[-1]
    if line and isinstance(cause, EXPECTED) and (place.line or "").startswith("raise"):
        return line  # somebody found words for this case; what an operation raises by itself seldom says where
    return f"{type(cause).__name__}: {line} ({Path(place.filename).name}:{place.lineno}; {TRACEBACK}=1 shows the way)"


def unknown(what: str, word: str, known: Iterable[str]) -> str:
    """The sentence about a word that is not known: the nearest one, and what there is."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"There is no {what}.{hint} There are: {', '.join(known) or 'none'}."


def unknown_key(node: DictConfig, key: str, known: Iterable[str] | None = None) -> str:
    """The sentence about a key that a node of the config has not, or should not have where `known` is given."""
    level = node._get_full_key(None)
    known = [str(k) for k in node if k != "hydra"] if known is None else known
    return unknown(f"key {key!r}{f' in {level}' if level else ''}", key, known)


def whole(key: str, value: object, least: int) -> int:
    """A whole number from the config. Raises ValueError for anything else, or one below the least."""
    if type(value) is not int or value < least:
        raise ValueError(f"{key}={value} cannot be: give a whole number from {least} on.")
    return value


def typed(cls: type[T], node: DictConfig) -> T:
    """A dataclass from a node of the config. What the node does not hold takes its default.

    Raises ValueError for an unknown key, a wrong type or a missing value, and whatever the dataclass itself raises."""
    types = {field.name: field.type for field in fields(cls)}  # type: ignore[arg-type]
    values = {}
    for key, value in node.items():
        if key not in types:
            raise ValueError(unknown_key(node, str(key), types))
        # 5e6 is the natural way to write a number of steps, and a float to YAML.
        whole = isinstance(value, float) and value.is_integer() and types[str(key)] in (int, "int")
        values[key] = int(value) if whole else value
    try:
        return cast(T, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), values)))
    except OmegaConfBaseException as error:
        raise ValueError(f"{node._get_full_key(error.full_key)}: {str(error).splitlines()[0]}.") from None
