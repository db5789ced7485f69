"""The arguments of a command: options of Hydra, and settings. Misuse that Hydra reports in its own words ends here."""

import argparse
import contextlib
import re
from pathlib import Path

from hydra._internal.utils import get_args_parser  # private, but the only list of the options of Hydra itself
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from particle_grid.support.errors import UserError

REFUSED = {
    "config_path": "the settings of a command cannot be replaced. A folder with more of them is --config-dir=FOLDER.",
    "config_name": "the settings of a command cannot be replaced. A file that changes several is experiment=NAME.",
    "experimental_rerun": "it unpickles a file, which could run anything: leave it out.",
}
MODES = {  # options that exclude each other
    "run": "--run",
    "multirun": "-m",
    "cfg": "--cfg",
    "info": "--info",
    "shell_completion": "--shell-completion",
}


def prepared(arguments: list[str]) -> list[str]:
    """Return the arguments of a command in the form and the order that Hydra understands, options first.

    Raises:
        UserError: for options that do not exist or are misused, and for settings without a name or a value.
    """
    parser = get_args_parser()
    parser.allow_abbrev = False
    parser.exit_on_error = False
    try:
        options, unknown = parser.parse_known_intermixed_args(arguments)
    except argparse.ArgumentError as error:
        raise UserError(f"{error.argument_name}: {error.message}; --hydra-help explains the options.") from None
    if unknown:
        bare = unknown[0].lstrip("-")
        raise UserError(
            f"There is no option {unknown[0]}. Settings are written without dashes, as in "
            f"{bare if '=' in bare else f'{bare}=VALUE'}; --help lists them, and --hydra-help the options."
        )
    _check_options(options)
    settings = [plain_setting(each) for each in options.overrides]
    _check_settings(settings, options.multirun)
    return [*(each for each in arguments if each not in options.overrides), *settings]


def _check_options(options: argparse.Namespace) -> None:
    """Refuse options that are not available here, or that do not go together."""
    for key, reason in REFUSED.items():
        if getattr(options, key) is not None:
            raise UserError(f"--{key.replace('_', '-')} is not available: {reason}")
    if options.config_dir is not None and not Path(options.config_dir).is_dir():
        raise UserError(
            f"--config-dir={options.config_dir} is not a folder: give one with presets of your own, such as "
            f"experiment/mine.yaml for experiment=mine."
        )
    if len(chosen := [typed for key, typed in MODES.items() if getattr(options, key)]) > 1:
        raise UserError(f"{chosen[0]} and {chosen[1]} exclude each other: leave one of them out.")
    if options.resolve and not (options.cfg or options.help):
        raise UserError("--resolve belongs to --cfg and --help: add --cfg job, or leave it out.")


def plain_setting(argument: str) -> str:
    """Return a setting without a leading `+`.

    Hydra's `+` adds keys to a config. Here that is only ever a misspelt key, which should be reported.

    Raises:
        UserError: for a setting without a name, and for the removal of one.
    """
    setting = re.sub(r"^\+{1,2}(?!hydra[./])", "", argument)
    if setting.startswith("="):
        raise UserError(f"{argument} has no name: write KEY=VALUE (--help lists the settings).")
    if re.match(r"~(?!hydra[./])", setting):
        raise UserError(f"{argument} would remove a setting, and a command needs each of them: leave it out.")
    return setting


def _check_settings(settings: list[str], swept: bool) -> None:
    if empty := {"hydra.run.dir=", "hydra.sweep.dir="} & set(settings):
        raise UserError(f"{empty.pop()} is empty: name a folder, or leave it out.")
    if swept and any(re.match(r"logger=(?!\[)[^\[]*,", setting) for setting in settings):
        raise UserError(
            "logger= cannot be swept, since it changes no run: give a list for all, as in logger=[csv,wandb]."
        )
    for setting in settings if swept else []:
        _check_swept(setting)


def _check_swept(setting: str) -> None:
    """Refuse a sweep over no values, of which Hydra would make no run."""
    with contextlib.suppress(HydraException):  # Hydra reports it; and only Hydra knows what a pattern matches
        override = OverridesParser.create().parse_override(setting)
        if override.is_discrete_sweep() and not any(True for _ in override.sweep_iterator()):
            raise UserError(f"{setting} has no values: give some, as in {override.key_or_group}=1,2.")
