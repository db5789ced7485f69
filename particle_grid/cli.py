"""What all entry points share: Hydra, with errors that say in one sentence what is wrong and what to do."""

import contextlib
import difflib
import functools
import hashlib
import importlib
import inspect
import json
import math
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    GrammarParseError,
    InterpolationKeyError,
    InterpolationResolutionError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
    ValidationError,
)

from particle_grid.sim import tasks
from particle_grid.support import atomic, registry, startup
from particle_grid.support.output import lasting_output

T = TypeVar("T")
PACKAGE = Path(__file__).parent
PLACE = re.compile(r"[\w.]*:\w*")  # of a class: my_package.my_module:MyClass
PLUGINS = {  # choices that come with a plugin of Hydra
    "hydra/launcher/submitit_slurm": "hydra-submitit-launcher",
}
RESOLVING = "ValueError raised while resolving interpolation: "  # OmegaConf, of an exception in a resolver
LONGEST_NAME = 200  # bytes; a folder's name may have 255, with the time in front of it
HYDRA_NOTES = "config.yaml", "hydra.yaml", "overrides.yaml"  # what Hydra writes about a run
LOCK = ".lock"  # held in the folder of a run by the process that trains there
TRACEBACK = "PARTICLE_GRID_TRACEBACK"  # environment variable: 1 shows where an error comes from
# Errors that a user can cause; any other kind is a bug.
EXPECTED = (ValueError, TypeError, OSError, RuntimeError, MemoryError, HydraException, OmegaConfBaseException)


WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", NoneType: "null"}


class JobError(RuntimeError):
    """A job of a sweep failed, and its reason has been reported."""


class OccupiedError(ValueError):
    """A folder belongs to another run, of which nothing is touched: not even why is written there. Only Hydra has by
    then left in .hydra what was asked for."""


def digest(*, _root_: DictConfig) -> str:
    """Eight letters that stand for a config, without Hydra's part of it and what may be imported: the same for the same
    run."""
    config = OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key not in ("hydra", "allow")])
    text = json.dumps(OmegaConf.to_container(config, resolve=True), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def run_name(name: object, resume: str | None) -> str:
    """What a run's folder is named after: its config, or for one that goes on the folder it comes from."""
    old = printable(Path(str(resume)).resolve().parent.name) if resume else ""
    return re.sub(r"^\d{4}-\d\d-\d\d_[\d-]+_", "", old) or check_name(name)


def check_name(name: object) -> str:
    """Return the name of a run as text. Raise ValueError for one that cannot be part of a folder's name, or that would
    lead to another folder."""
    text = "" if name is None else str(name)
    if not text.isprintable() or {"/", "\\"} & set(text) or text.strip(" .") == "" or len(text.encode()) > LONGEST_NAME:
        raise ValueError(
            f"name={printable(text)[:80]} cannot be part of a folder's name: give up to {LONGEST_NAME} letters, digits "
            f"and signs but / and \\, or choose any folder with hydra.run.dir=PATH."
        )
    return text


def printable(text: str) -> str:
    """Return a text whose control characters, which could steer a terminal, are written as escape sequences."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


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
    registered = {"task": tasks.names(), "policy": [*registry.registered("policy")]}
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
            # Output here too: a launcher may run jobs in other processes.
            with lasting_output(), registry.only(_texts(OmegaConf.to_container(config))):
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
        @lasting_output()
        def entry() -> None:
            startup.ready()
            os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us instead of being printed
            # Hydra's "+" adds keys to a config. Here that is only ever a misspelt key: let it be found.
            sys.argv[1:] = [re.sub(r"^\+{1,2}(?!hydra[./])", "", argument) for argument in sys.argv[1:]]
            together = os.environ.get("WORLD_SIZE", "1") != "1"  # torchrun
            if together and os.environ.get("RANK") != "0":  # only the first of the processes has a folder
                sys.argv += ["hydra.run.dir=.", "hydra.output_subdir=null"]
            try:
                if empty := {"hydra.run.dir=", "hydra.sweep.dir="} & set(sys.argv):
                    raise ValueError(f"{empty.pop()} is empty: name a folder, or leave it out.")
                if any(argument.startswith("--e") for argument in sys.argv):
                    raise ValueError("--experimental-rerun unpickles a file, which could run anything: leave it out.")
                if {"-m", "--multirun"} & set(sys.argv) and together:
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


def _texts(value: Any) -> Iterator[str]:
    """Yield every string in a config: the places that it may name are among them."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)
    elif isinstance(value, str):
        yield value


def report(error: Exception, where: str = "") -> int:
    """Prints an error on stderr, with its traceback if asked for or unexpected; returns the exit code 1."""
    if os.environ.get(TRACEBACK) == "1" or not isinstance(error, EXPECTED):
        traceback.print_exception(error)
    print(f"error{' in ' + where if where else ''}: {explain(error)}", file=sys.stderr)
    return 1


def record(error: Exception, folder: Path) -> None:
    """Leaves the reason why a run failed in its folder: where it came from, and the sentence about it as last line."""
    text = "".join(traceback.format_exception(error)) + f"error: {explain(error)}\n"
    with contextlib.suppress(OSError):  # such as a folder that is gone: the reason has been said
        atomic.write(folder / "error.txt", text.encode())


def tidy(folder: Path, notes: str) -> None:
    """Remove the folder of a run that was refused before it began, in which there are only Hydra's notes, and a lock
    that nobody holds. Files of anybody else stay."""
    if folder.is_dir() and {notes} <= {path.name for path in folder.iterdir()} <= {notes, LOCK}:
        for name in HYDRA_NOTES:
            (folder / notes / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty, or somebody stands in it
            (folder / notes).rmdir()
            (folder / LOCK).unlink(missing_ok=True)
            folder.rmdir()


def explain(error: Exception) -> str:
    """What is wrong and what to do, in one line, whatever a file has put into it."""
    return printable(_sentence(error))


def _sentence(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, HydraException) and error.__cause__ else error
    line = " ".join(str(cause).split())
    match cause:
        case OmegaConfBaseException() if sentence := explain_config(cause, line):
            return sentence
        case MemoryError() | RuntimeError() if isinstance(cause, MemoryError) or "allocate memory" in line:
            return (
                f"There is not enough memory for runs of this size ({line}): lower world.worlds, world.agents, "
                f"trainer.rollout_length or policy.hidden."
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
        case Exception() if line.startswith(RESOLVING):  # a resolver of ours has found words for it
            return str(cause).splitlines()[0].removeprefix(RESOLVING)
        case Exception() if line.startswith("Config group override must be") or _in_defaults(cause):
            return "A group of the config cannot be null, nor a number: choose one, as in task=NAME, or leave it out."
        case HydraException() | OmegaConfBaseException():
            return f"{line} (--help shows what there is)"
        case RuntimeError() if line.startswith("Unknown plugin class"):
            return f'A plugin is needed that is not installed: pip install "particle-grid[sweep]" ({line})'
    place = traceback.extract_tb(cause.__traceback__)[-1]
    if line and isinstance(cause, EXPECTED) and (place.line or "").startswith("raise"):
        return line  # somebody found words for this case; what an operation raises by itself seldom says where
    return f"{type(cause).__name__}: {line} ({Path(place.filename).name}:{place.lineno}; {TRACEBACK}=1 shows the way)"


def explain_config(error: OmegaConfBaseException, line: str) -> str:
    """Return what is wrong with a config and what to do, in one line, or nothing if OmegaConf's own is all there is."""
    key = error.full_key
    match error:
        case ConfigKeyError() | ConfigAttributeError() if isinstance(error.parent_node, DictConfig):
            return unknown_key(error.parent_node, str(error.key))
        case MissingMandatoryValue():
            return f"{key} must be given: add {key}=VALUE to the command line."
        case InterpolationToMissingValueError() if missing := re.search(r"Missing mandatory value: ([\w.]+)", line):
            return f"{missing[1]} must be given: add {missing[1]}=VALUE to the command line."
        case InterpolationKeyError() if missing := re.search(r"Interpolation key '([\w.]+)' not found", line):
            return f"{missing[1]} is needed, and there is none: choose one, as in {missing[1].partition('.')[0]}=NAME."
        case GrammarParseError():
            return f"{key} has an interpolation that cannot be read: write a value without ${{...}}."
        case UnsupportedInterpolationType() | InterpolationResolutionError():
            return f"{key} cannot be worked out ({line.partition(' full_key:')[0]}): write a value without ${{...}}."
        case ValidationError() if key:
            return f"{key} cannot have this value ({line.partition(' full_key:')[0]}): give another, or leave it out."
    return ""


def _in_defaults(error: Exception) -> bool:
    """Return whether Hydra failed at a group's choice, of which it does not check that it is a name."""
    return isinstance(error, TypeError) and "defaults_list.py" in traceback.extract_tb(error.__traceback__)[-1].filename


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


def whole(key: str, value: object, least: int, most: int = (1 << 63) - 1) -> int:
    """A whole number from the config. Raises ValueError for anything else, or one out of range."""
    if type(value) is not int or value < least:
        raise ValueError(f"{key}={value} cannot be: give a whole number from {least} on.")
    if value > most:
        raise ValueError(f"{key}={value} cannot be: give at most {most}.")
    return value


def check_paths(config: DictConfig, *keys: str) -> None:
    """Raises ValueError if one of these keys is neither null nor text, such as a path from an empty variable."""
    for key in keys:
        value = config[key]
        if value is not None and not (value and isinstance(value, str)):
            raise ValueError(f"{key}={written(value)} is no path: give one, or leave it out.")


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
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{node._get_full_key(key)}={value} cannot be: give a finite number.")
    try:
        return cast(T, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), values)))
    except OmegaConfBaseException as error:
        raise ValueError(mistyped(cls, node, values, error)) from None


def mistyped(cls: type, node: DictConfig, values: dict[Any, Any], error: OmegaConfBaseException) -> str:
    """Return the sentence about a value that does not have the type of its field."""
    key = re.split(r"[.\[]", str(error.full_key))[0]
    full, kind = node._get_full_key(key), get_type_hints(cls)[key]
    if key not in values:
        return f"{full} must be given: add {full}=VALUE."
    wanted = in_words(kind)
    if not wanted:
        return f"{node._get_full_key(error.full_key)}: {str(error).splitlines()[0]}."
    default = next(field.default for field in fields(cls) if field.name == key)
    example = "" if default in (MISSING, None) else f", such as {written(default)}"
    return f"{full}={written(values[key])} cannot be: give {wanted}{example}."


def in_words(kind: Any) -> str:
    """Return what a field of a type takes; empty for types with a structure of their own."""
    if isinstance(kind, UnionType):
        return " or ".join(map(in_words, get_args(kind)))
    if get_origin(kind) is list:
        return f"a list of which each entry is {in_words(get_args(kind)[0])}"
    return WORDS.get(kind, "")


def written(value: Any) -> str:
    """Return a value as it is written on a command line."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
