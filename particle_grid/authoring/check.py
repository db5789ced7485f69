"""Check a task, a policy or a head of your own: python -m particle_grid check module:Class."""

import argparse
import importlib.util
import sys
from collections.abc import Callable, Sequence

from particle_grid.authoring import check_head, check_policy, check_task
from particle_grid.authoring.findings import INVALID, Check, examine
from particle_grid.cli import ending_in_one_line, parser_of
from particle_grid.learn.heads import HEAD_METHODS, HEADS
from particle_grid.learn.policy import POLICIES, Policy
from particle_grid.settings.checks import check_overrides
from particle_grid.settings.compose import composed
from particle_grid.settings.errors import explain
from particle_grid.settings.invocation import by_key
from particle_grid.sim import tasks
from particle_grid.sim.task import PARTS
from particle_grid.support import registry
from particle_grid.support.errors import UserError
from particle_grid.support.output import lasting_output

Checker = Callable[[str, str, Sequence[str]], bool]
CHECKERS: dict[str, Checker] = {
    "task": check_task.check,
    "policy": check_policy.check,
    "head": check_head.check,
}
EXAMPLES = """
  python -m particle_grid check group                  # what a task that ships says
  python -m particle_grid check group world.agents=64  # settings are those of training, and are changed alike
"""


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = parser_of(
        "python -m particle_grid check",
        "Tests a task, a policy or a head in some seconds: a line for each check, with what is wrong.\n"
        "Exit code 0 if all is well, 1 if something is wrong.",
        EXAMPLES,
    )
    names = "your class, or a name that `python -m particle_grid` lists"
    parser.add_argument("place", metavar="module:Class", help=names)
    parser.add_argument("settings", metavar="KEY=VALUE", nargs="*", default=[], help="settings, as for training")
    return parser


@lasting_output()
def main() -> None:
    """Check the class that the command line names."""
    chosen = command_line().parse_args()
    with ending_in_one_line():
        if not check(chosen.place, chosen.settings):
            sys.exit(1)


def check(place: str, settings: Sequence[str] = ()) -> bool:
    """Check a class, print what was found, and return whether all is well.

    Args:
        place: module:Class, or a registered name.
        settings: overrides of the command line of `train`.

    Raises:
        UserError: if there is no such class, if it is neither a task, nor a policy, nor a head, or if a setting is
            invalid.
    """
    if registry.is_place(place):
        file = _file_of(place)
        print(f"{place} in {file}")
        if not examine(place, file, [Check("can be imported", _imported, vital=True)]):
            return False
        kind = kind_of(place)
    else:
        file = ""
        kind = _registered_kind(place)
    print(f"{place} is a {kind}", flush=True)
    check_settings(kind, place, settings)
    return CHECKERS[kind](place, file, settings)


def kind_of(place: str) -> str:
    """Return whether a class is a "task", a "policy" or a "head": of which it has the larger share of parts.

    Raises:
        UserError: if it has hardly any part.
    """
    found = registry.load("class", place, ())
    if issubclass(found, Policy):
        return "policy"
    parts = {"task": PARTS, "head": HEAD_METHODS, "policy": ("initial_state",)}
    shares = {kind: sum(hasattr(found, part) for part in names) / len(names) for kind, names in parts.items()}
    kind = max(shares, key=lambda each: shares[each])
    if not shares[kind]:
        raise UserError(
            f"{place} is neither a task, nor a policy, nor a head: a task has {', '.join(PARTS)}; a policy derives "
            f"from particle_grid.learn.policy.Policy; a head has {', '.join(HEAD_METHODS)}."
        )
    return kind


def check_settings(kind: str, place: str, settings: Sequence[str]) -> None:
    """Raise UserError for a setting that training would refuse, or that chooses what a check chooses itself.

    Nothing is raised if the class cannot even be trained without settings: its checks say why.
    """
    chosen = {"task": "task", "policy": "policy", "head": "policy.head"}[kind]
    check_overrides(settings)
    for key, setting in by_key(settings).items():
        if key in (chosen, "action"):
            raise UserError(f"{setting} is not for check, which takes {place} and both action forms: leave it out.")
    try:
        composed([f"{chosen}={place}"])
    except Exception:  # whatever the class raises
        return
    try:
        composed([f"{chosen}={place}", *settings])
    except INVALID as error:
        raise UserError(explain(error)) from error


def _imported(place: str) -> str:
    registry.load("class", place, ())
    return ""


def _file_of(place: str) -> str:
    """Return the path of the module of a class; the name of the module if it cannot be found."""
    name = place.partition(":")[0]
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return name
    return found.origin or name if found else name


def _registered_kind(name: str) -> str:
    known = {
        "task": tasks.names(),
        "policy": [*POLICIES, *registry.registered("policy")],
        "head": [*HEADS, *registry.registered("head")],
    }
    for kind, names in known.items():
        if name in names:
            return kind
    everything = [name for names in known.values() for name in names]
    raise registry.unknown_class("task, policy or head", name, everything)
