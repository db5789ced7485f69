"""Write a task, a policy or a head to start from: python -m particle_grid new task NAME."""

import argparse
import importlib.util
import keyword
import re
from pathlib import Path

from particle_grid.cli import ending_in_one_line, parser_of
from particle_grid.support.errors import UserError, unknown
from particle_grid.support.output import lasting_output

TEMPLATES = Path(__file__).parent / "templates"  # no modules: a change to one that names kernels recompiles all of them
LONGEST_NAME = 40  # letters, so that the lines of the file stay short
# Enough to learn this task. With several threads, small tensors wait for each other on busy cores.
SMALL = "task=center experiment=smoke trainer.minibatch=512 trainer.total_steps=5e5 trainer.threads=1"
NEXT = {
    "task": "python -m particle_grid.train task={place}",
    "policy": "python -m particle_grid.train {small} policy={place}",
    "head": "python -m particle_grid.train {small} action=continuous policy.head={place}",
}
EXAMPLES = """
  python -m particle_grid new task my_task        # writes my_task.py with the class MyTask, which runs at once
  python -m particle_grid new policy my_policy
  python -m particle_grid new head my_head        # a distribution of continuous actions
"""


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = parser_of(
        "python -m particle_grid new",
        "Writes a small, complete example to the current folder, and says how to check and train it.",
        EXAMPLES,
    )
    parser.add_argument("kind", help=f"what to write: {', '.join(NEXT)}")
    parser.add_argument("name", help="name of the file without .py, such as my_task")
    return parser


@lasting_output()
def main() -> None:
    """Write the file that the command line names."""
    chosen = command_line().parse_args()
    with ending_in_one_line():
        place = write(chosen.kind, chosen.name)
        print(f"Wrote {chosen.name}.py. Edit it, and type:")
        print(f"  python -m particle_grid check {place}")
        print(f"  {NEXT[chosen.kind].format(place=place, small=SMALL)}")


def write(kind: str, name: str) -> str:
    """Write NAME.py to the current folder, and return the place of its class, module:Class.

    Raises:
        UserError: for an unknown kind, a name that is not one of a new module, and a file that exists.
    """
    if kind not in NEXT:
        raise UserError(unknown(f"template {kind!r}", kind, NEXT))
    text = (TEMPLATES / f"{kind}.txt").read_text("utf-8")
    class_name = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    _check_name(name)
    _check_keyword(class_name)
    imports = "".join(line for line in text.splitlines() if line.startswith(("import ", "from ")))
    if re.search(rf"\b{class_name}\b", imports):
        raise UserError(f"The class {class_name} would hide a name that the file itself uses: choose another name.")
    try:
        with Path(f"{name}.py").open("x", encoding="utf-8") as file:
            file.write(re.sub(r"\bExample\b", class_name, text))
    except FileExistsError:
        raise UserError(f"{name}.py exists: choose another name, or move that file away.") from None
    return f"{name}:{class_name}"


def _check_name(name: str) -> None:
    """Raise UserError for a name that Python, or a command line, could not use for a new module."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise UserError(f"{name!r} is not a name of a module: use letters, digits and underscores, as in my_task.")
    _check_keyword(name)
    if len(name) > LONGEST_NAME:
        raise UserError(f"{name} has {len(name)} letters: use a name of at most {LONGEST_NAME}.")
    if Path(f"{name}.py").exists():
        return  # refused when it is written, whatever Python finds
    found = importlib.util.find_spec(name)
    if found:
        raise UserError(f"{name}.py would hide the module {name} ({found.origin}): choose another name.")


def _check_keyword(name: str) -> None:
    """Raise UserError for a name of a module or a class that is a keyword of Python."""
    if keyword.iskeyword(name):
        raise UserError(f"{name} is a keyword of Python: choose another name.")
