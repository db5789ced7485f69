"""Errors in one sentence: what is wrong, and what to do."""

import os
import re
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    ConfigTypeError,
    GrammarParseError,
    InterpolationKeyError,
    InterpolationResolutionError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
    ValidationError,
)

from particle_grid.support import registry
from particle_grid.support.errors import UserError, unknown
from particle_grid.support.renamed import successor
from particle_grid.support.text import printable

TRACEBACK = "PARTICLE_GRID_TRACEBACK"  # environment variable: 1 shows where an error comes from
# Errors that a user can cause; any other kind is a bug, and comes with its traceback.
EXPECTED = (ValueError, TypeError, OSError, RuntimeError, MemoryError, HydraException, OmegaConfBaseException)
PLUGINS = {  # choices that come with a plugin of Hydra
    "hydra/launcher/submitit_slurm": "hydra-submitit-launcher",
}
RESOLVER_ERROR = re.compile(r"\w+ raised while resolving interpolation: ")


def print_error(error: Exception, where: str = "") -> int:
    """Print an error to stderr, with its traceback if that is wanted or the error is a bug; return the exit code 1."""
    if shows_traceback(error):
        traceback.print_exception(error)
    print(f"error{' in ' + where if where else ''}: {explain(error)}", file=sys.stderr)
    return 1


def shows_traceback(error: Exception) -> bool:
    """Return whether an error is printed with its traceback: if that is wanted, or if it is a bug."""
    return os.environ.get(TRACEBACK) == "1" or not isinstance(error, EXPECTED)


def explain(error: Exception) -> str:
    """Return what is wrong and what to do, in one line, whatever characters a file has put into it."""
    return printable(_sentence(error))


def _sentence(error: Exception) -> str:
    cause = error
    parsed = not isinstance(error, OverrideParseException)
    if parsed and isinstance(error, HydraException) and isinstance(error.__cause__, Exception):
        cause = error.__cause__
    line = " ".join(str(cause).split())
    if isinstance(cause, UserError):
        return line
    if isinstance(cause, OmegaConfBaseException) and (sentence := _of_config(cause, line)):
        return sentence
    if isinstance(cause, MemoryError) or (isinstance(cause, RuntimeError) and "allocate memory" in line):
        return (
            f"There is not enough memory for runs of this size ({line}): lower world.worlds, world.agents, "
            f"trainer.rollout_length or policy.hidden."
        )
    hint = "" if shows_traceback(error) else f"; {TRACEBACK}=1 shows the traceback"
    return _of_hydra(cause, line) or _of_system(cause) or _of_elsewhere(cause, line, hint)


def _of_hydra(error: Exception, line: str) -> str:
    """Return the sentence about an error in what Hydra was given, or nothing for any other error."""
    match error:
        case MissingConfigException(missing_cfg_file=str(path), options=[*options]):
            group, _, choice = path.rpartition("/")
            if path in PLUGINS:
                return f'{path} needs {PLUGINS[path]}, which is not installed: pip install "particle-grid[sweep]"'
            if group in registry.GROUPS:
                return str(registry.unknown_class(group, choice, options))
            return unknown(f"{group} {choice!r}", choice, options)
        case OverrideParseException():
            return _unreadable(str(error.override), error.__cause__)
        case Exception() if _by_own_resolver(line):
            return RESOLVER_ERROR.sub("", str(error).splitlines()[0])
        case Exception() if line.startswith("Config group override must be") or _in_defaults_list(error):
            return "A group of the config cannot be null or a number: choose one, as in task=NAME, or leave it out."
        case HydraException() if line.startswith("Error resolving interpolation"):
            return "A group of the config cannot be an interpolation: choose one, as in task=NAME."
        case HydraException() if found := re.match(r"Sweep parameters '(.+)' requires --multirun", line):
            return f"{found[1]} has several values: add -m for a run with each."
        case HydraException() if line.endswith("INTERVAL_SWEEP"):
            return "An interval is for hydra/sweeper=optuna: add that, or list values, as in KEY=1,2."
        case HydraException() if found := re.match(r"Ambiguous value for argument '([\w.]+)=([^']*)'", line):
            key, values = found.groups()
            return (
                f"{key}={values} has several values: write {key}=[{values}] for a list, or, on the command line, add "
                f"-m for a run with each."
            )
        case ConfigCompositionException() if found := re.match(r"Could not override '(.+?)'", line):
            reason = ", because a checkpoint has its own" if found[1] == "policy" else ""
            return f"{found[1]} cannot be chosen here{reason}: leave it out (--help lists the settings)."
        case HydraException() | OmegaConfBaseException():
            return f"{line} (--help lists the choices)"
        case RuntimeError() if line.startswith("Unknown plugin class"):
            return f'A plugin is needed that is not installed: pip install "particle-grid[sweep]" ({line})'
    return ""


def _of_system(error: Exception) -> str:
    """Return the sentence about an error of the operating system, or nothing for any other error."""
    match error:
        case OSError(filename=str(file), strerror=str(reason)):
            return f"{file} cannot be used ({reason}): choose another path, or repair that one."
        case OSError(errno=None):  # one of ours, whose message is a sentence
            return str(error)
    return ""


def _of_elsewhere(error: Exception, line: str, hint: str) -> str:
    """Return the sentence about an unforeseen error: its message, where it comes from, and how to see more."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    name = Path(place.filename).name
    return f"{type(error).__name__}: {line} ({name}:{place.lineno}{hint})"


def _of_config(error: OmegaConfBaseException, line: str) -> str:
    """Return what is wrong with a config and what to do, or nothing if OmegaConf's own message has to suffice."""
    key = error.full_key
    reason = line.partition(" full_key:")[0]
    match error:
        case ConfigKeyError() | ConfigAttributeError() if isinstance(error.parent_node, DictConfig):
            return unknown_key(error.parent_node, str(error.key))
        case MissingMandatoryValue():
            return f"{key} is required: add {key}=VALUE."
        case InterpolationToMissingValueError() if missing := re.search(r"Missing mandatory value: ([\w.]+)", line):
            return f"{missing[1]} is required: add {missing[1]}=VALUE."
        case InterpolationKeyError() if missing := re.search(r"Interpolation key '([\w.]+)' not found", line):
            return f"${{{missing[1]}}} refers to a setting that does not exist: write a value instead."
        case GrammarParseError():
            return f"{key} has an interpolation that cannot be read: write a value without ${{...}}."
        case UnsupportedInterpolationType() | InterpolationResolutionError() if not _by_own_resolver(line):
            return f"{key} cannot be resolved ({RESOLVER_ERROR.sub('', reason)}): write a value without ${{...}}."
        case ValidationError() if key and line.startswith("Invalid type assigned"):
            return f"{key} cannot have this value: give each of its keys, as in {key}.KEY=VALUE."
        case ConfigTypeError() if key and line.startswith("Cannot merge"):  # a list and a dict
            fitting = (
                f"a list, as in {key}=[A,B]"
                if error.object_type is list
                else f"each of its keys, as in {key}.KEY=VALUE"
            )
            return f"{key} cannot have this value: give {fitting}."
        case ValidationError() if key:
            return f"{key} cannot have this value ({reason}): give another, or leave it out."
    return ""


def _unreadable(setting: str, cause: BaseException | None) -> str:
    """Return the sentence about a setting that does not have the form of one."""
    if "=" not in setting:
        return f"{setting!r} is not a setting: write KEY=VALUE, and quote a value that has spaces."
    reason = f" ({cause})" if isinstance(cause, ValueError) else ""
    return (
        f"{setting!r} cannot be read{reason}: close brackets and quotation marks, and quote a value with special "
        f"characters, as in \"name='a=b'\"."
    )


def _by_own_resolver(line: str) -> bool:
    """Return whether an error comes from one of our resolvers, whose message is a sentence."""
    return line.startswith("User") and RESOLVER_ERROR.match(line) is not None


def _in_defaults_list(error: Exception) -> bool:
    """Return whether Hydra failed at the choice of a group, which it does not check to be a name."""
    return isinstance(error, TypeError) and "defaults_list.py" in traceback.extract_tb(error.__traceback__)[-1].filename


def unknown_key(node: DictConfig, key: str, known: Iterable[str] | None = None) -> str:
    """Return the sentence about a key that a node of the config lacks, or should lack if `known` is given."""
    group = node._get_full_key(None)
    new = successor(str(group), key)
    if new:
        return f"{group}.{key} is now called {group}.{new}: use that name."
    words = [str(k) for k in node if k != "hydra"] if known is None else known
    return unknown(f"key {key!r}{f' in {group}' if group else ''}", key, words)
