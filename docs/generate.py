"""Write the tables that the pages take from the code and its data: python docs/generate.py.

A table stands between <!-- generated: NAME ARGUMENT --> and <!-- end -->, where NAME is a function of TABLES. The rest
of a page is written by hand. tests/test_docs.py fails if a table is out of date.
"""

import csv
import importlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from particle_grid.__main__ import AUTHORING, COMMANDS, command_purpose, module_of, task_purpose
from particle_grid.env import ACTIONS
from particle_grid.learn import policy
from particle_grid.learn.config import TrainerConfig
from particle_grid.runs.load import load_shipped
from particle_grid.settings.help import of_command, of_policy
from particle_grid.sim import tasks
from particle_grid.sim.task import team_names
from particle_grid.sim.tasks._baselines import entry_for
from particle_grid.sim.world import World
from particle_grid.support.text import first_line

DOCS = Path(__file__).parent
PART = re.compile(r"(<!-- generated: (\w+) ?(\w*) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def code(text: object) -> str:
    """Return a text as inline code, or nothing for an empty one."""
    return f"`{text}`" if str(text) else ""


def commands() -> str:
    """Return the commands and what they are for."""
    return table(
        ["command", "what it does"],
        [[f"[`{name}`](#{name})", command_purpose(name)] for name in (*COMMANDS, *AUTHORING)],
    )


def settings(name: str) -> str:
    """Return the settings of a file in conf/, or of one of the classes that fill them, as --help prints them."""
    return settings_table(of_command(name))


def settings_table(found: Iterable[tuple[str, str]]) -> str:
    """Return settings, `key=default` and a comment each, as a table."""
    rows = []
    for key, comment in found:
        setting, _, default = key.partition("=")
        rows.append([code(setting), "" if default == "VALUE" else code(default), comment])
    return table(["setting", "default", "meaning"], rows)


def options(name: str) -> str:
    """Return the options of a command that is not one of Hydra's."""
    parser = importlib.import_module(module_of(name)).command_line()
    rows = []
    for action in parser._actions:
        if action.help and action.dest not in ("help", "version"):
            value = f" {action.dest.upper()}" if action.option_strings and action.nargs is None else ""
            rows.append([code("".join(action.option_strings) + value or action.dest.upper()), action.help])
    return table(["option", "meaning"], rows)


def policies() -> str:
    """Return the policies."""
    return table(
        ["`policy=`", "what it is"], [[code(name), first_line(kind.__doc__)] for name, kind in policy.POLICIES.items()]
    )


def policy_options() -> str:
    """Return the options of the policies that ship, as --help prints them."""
    return settings_table((f"policy.{key}", comment) for key, comment in of_policy("conv_lstm"))


def task_settings(task: str) -> str:
    """Return the settings of the world and the trainer with which a task differs from the defaults."""
    defaults = {"world": asdict(World()), "trainer": asdict(TrainerConfig())}
    rows = [
        [code(f"{group}.{name}"), code(f"{value:_}"), code(f"{defaults[group][name]:_}")]
        for group, values in tasks.load(task).settings.items()
        if group in defaults
        for name, value in values.items()
    ]
    return table(["setting", f"{task}", "default of other tasks"], rows)


def learned(task: str, action: str, kind: str) -> np.ndarray:
    """Return the normalised scores in learning.csv, f64[seeds, teams], with actions that are `sampled` or `greedy`."""
    with (DOCS / "learning.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["task"], row["action"]) == (task, action)]
    rows.sort(key=lambda row: (int(row["seed"]), int(row["team"])))
    return np.array([float(row[kind]) for row in rows]).reshape(-1, len(teams(task)))


def means(task: str, action: str) -> dict[str, list[float]]:
    """Return the mean score of each team in the task's unit, of random actions, the script and the learned policy."""
    entry: Any = entry_for({"task": task, "action": action})
    random, scripted = np.mean(entry["random"], 0), np.mean(entry["scripted"], 0)
    found = {"random actions": random, "script": scripted}
    for kind in ("sampled", "greedy"):
        found[f"learned, {kind} actions"] = random + learned(task, action, kind).mean(0) * (scripted - random)
    return {player: scores.tolist() for player, scores in found.items()}


def shown(score: float, scripted: float) -> str:
    """Return a score with as many digits as suit the size of the script's."""
    digits = 1 if abs(scripted) >= 10 else 2 if abs(scripted) >= 1 else 3
    return f"{score:z.{digits}f}"


def scores(task: str) -> str:
    """Return the scores of a task by player, in its unit and normalised; one table for each team."""
    found = {action: means(task, action) for action in ACTIONS}
    header = [f"{action}{what}" for action in ACTIONS for what in ("", ", normalised")]
    tables = []
    for k, team in enumerate(teams(task)):
        rows = []
        for player in found[ACTIONS[0]]:
            row = [player]
            for action in ACTIONS:
                random, scripted = (found[action][name][k] for name in ("random actions", "script"))
                score = found[action][player][k]
                row += [shown(score, scripted), f"{(score - random) / (scripted - random):z.2f}"]
            rows.append(row)
        tables.append(table([team, *header], rows))
    runs = len(learned(task, ACTIONS[0], "sampled"))
    count = "one run" if runs == 1 else f"{runs} runs"
    source = f"*Learned*: policies trained with the default settings, {count} of each action form"
    return "\n\n".join([*tables, f"{source} ([learning results](../learning.md))."])


def teams(task: str) -> list[str]:
    """Return the names of a task's teams; one empty name if it has a single one."""
    return team_names(tasks.load(task)) or [""]


def shipped(task: str) -> str:
    """Return a sentence on the policies that ship."""
    said = []
    for action in ACTIONS:
        saved = load_shipped(task, action)
        said.append(f"{saved.score:.2f} ({action}, trained for {saved.steps / 1e6:.0f} million agent-steps)")
    mean = ", averaged over both teams" if len(teams(task)) > 1 else ""
    return f"With sampled actions, the policies that ship score {' and '.join(said)}{mean}."


def unit(task: str) -> str:
    """Return the unit of a task's score."""
    return f"The unit is *{tasks.load(task).unit}*."


def overview() -> str:
    """Return all tasks, with links to their pages."""
    rows = []
    for name in tasks.names():
        kind = tasks.load(name)
        found = [learned(name, action, "sampled").mean(0) for action in ACTIONS]
        best = [" / ".join(f"{score:.2f}" for score in by_team) for by_team in found]
        steps = f"{kind.settings['trainer']['total_steps'] / 1e6:.0f}M"
        rows.append([f"[`{name}`](tasks/{name}.md)", task_purpose(name), kind.unit, steps, *best])
    header = ["task", "what happens", "unit of the score", "agent-steps", "learned, discrete", "learned, continuous"]
    return table(header, rows)


MAKERS = (commands, settings, options, policies, policy_options, task_settings, scores, shipped, unit, overview)
TABLES = {maker.__name__: maker for maker in MAKERS}


def renewed(text: str) -> str:
    """Return a page with its tables made again."""

    def part(found: re.Match[str]) -> str:
        arguments = [found[3]] if found[3] else []
        return f"{found[1]}\n{TABLES[found[2]](*arguments)}\n\n{found[4]}"

    return PART.sub(part, text)


def pages() -> Iterator[Path]:
    """Yield the pages that have generated parts."""
    return (path for path in sorted(DOCS.rglob("*.md")) if PART.search(path.read_text("utf-8")))


def main() -> None:
    """Write all pages that have changed."""
    for path in pages():
        text = path.read_text("utf-8")
        if (new := renewed(text)) != text:
            path.write_text(new, "utf-8")
            print(f"Saved: {path.relative_to(DOCS)}")


if __name__ == "__main__":
    main()
