"""Exports that a command line or a program requests: which policies, as which files, and where."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from particle_grid.exports import card, onnx
from particle_grid.exports.contract import describe
from particle_grid.learn.policy import Policy
from particle_grid.runs import load, safetensors
from particle_grid.runs.folder import RunFolder
from particle_grid.runs.load import Checkpoint
from particle_grid.runs.results import Results
from particle_grid.support import atomic
from particle_grid.support.errors import UserError, unknown
from particle_grid.support.text import as_written

FORMATS: dict[str, Any] = {"onnx": onnx, "safetensors": safetensors}  # by their suffixes


def export(saved: Checkpoint, policy: Policy, files: Sequence[Path], results: Results) -> list[Path]:
    """Write a policy in one format or several, and its model card, and return the paths.

    Args:
        saved: what the policy was loaded from.
        policy: with its weights.
        files: their suffixes decide the formats; the card is beside the first.
        results: final scores of its run; empty if they are unknown.

    Raises:
        UserError: for a suffix that is unknown, a library that is not installed, or a policy that ONNX cannot express.
        OSError: if a file cannot be written.
    """
    check_places(files)
    contract = describe(saved, policy, results)
    for file in files:
        content = FORMATS[_format(file)].encode(policy, contract)  # which may take a minute, or fail
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(file, content)
    about = _card_path(files)
    atomic.write(about, card.model_card(saved, policy, results, files).encode())
    return [*files, about]


def check_places(files: Sequence[Path]) -> None:
    """Raise UserError if these files cannot be written, if that can be known in advance."""
    for file in files:
        if _format(file) not in FORMATS:
            raise UserError(f"{file} has no known format: choose a name that ends in .onnx or .safetensors.")
        FORMATS[_format(file)].check_libraries()
    for file in (*files, _card_path(files)):
        atomic.check_place(file, make=True)


def _format(file: Path) -> str:
    return file.suffix.removeprefix(".")


def _card_path(files: Sequence[Path]) -> Path:
    return files[0].with_suffix(card.SUFFIX)


def chosen_formats(value: Any) -> list[str]:
    """Return the formats of a command line: those of a list, or a single one. Raise UserError for an unknown one."""
    names = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not names:
        raise UserError(f"format={as_written(value)} names no format: choose from {', '.join(FORMATS)}.")
    for name in names:
        if name not in FORMATS:
            raise UserError(unknown(f"format {as_written(name)}", str(name), FORMATS))
    return list(dict.fromkeys(names))


def chosen_policies(checkpoint: Any, task: str | None, action: str | None) -> list[str]:
    """Return the names of policies, for `particle_grid.runs.load.load_trained`.

    Args:
        checkpoint: as for `particle_grid.runs.load.single_names`.
        task: with "pretrained", only the policies of this task.
        action: with "pretrained", only those of this action form.

    Raises:
        UserError: if there is no such policy.
    """
    if (task or action) and checkpoint != load.PRETRAINED:
        raise UserError(
            "task= and action= choose among the policies that ship: leave them out, or use checkpoint=pretrained."
        )
    tasks = load.shipped_tasks()
    if task is not None and task not in tasks:
        raise UserError(unknown(f"policy for task={task} that ships", task, tasks))
    ending = f"-{action}" if action else ""
    beginning = f"{load.PREFIX}{task}-" if task else ""
    shipped = [name for name in load.shipped_names() if name.startswith(beginning) and name.endswith(ending)]
    return load.single_names(checkpoint, shipped, "checkpoint")


def files_for(names: Sequence[str], formats: Sequence[str], path: str | None) -> dict[str, list[Path]]:
    """Return the paths of the files to write, by the name of the policy.

    Args:
        names: of policies.
        formats: of FORMATS.
        path: of the only file, or a folder; None for a checkpoint's own folder, and the current one if it ships.

    Raises:
        UserError: for a path that does not fit the format or the number of files, and for two files of one name.
    """
    if path and Path(path).suffix and not Path(path).is_dir():
        _check_single(path, len(names), formats)
        return {names[0]: [Path(path)]}
    files = {}
    for name in names:
        own = Path() if load.is_shipped(name) else Path(name).parent
        folder = Path(path) if path else own
        files[name] = [folder / f"{load.label_of(Path(name))}.{format}" for format in formats]
    everything = [file for several in files.values() for file in several]
    if twice := [file for file in everything if everything.count(file) > 1]:
        raise UserError(f"{twice[0]} would be written twice: export the policies of this name one by one.")
    return files


def _check_single(path: str, policies: int, formats: Sequence[str]) -> None:
    """Raise UserError if not just one policy in one format is to be written, or if the path has another suffix."""
    count = policies * len(formats)
    if count > 1:
        raise UserError(f"path={path} names one file, and there are {count} to write: give a folder.")
    if not path.endswith(f".{formats[0]}"):
        raise UserError(f"path={path} does not end in .{formats[0]}: choose such a name, or another format.")


def results_of(name: str) -> Results:
    """Return the final scores of the run that a checkpoint belongs to; empty ones if they are unknown.

    Raises:
        UserError: if the file that holds them is damaged.
    """
    run = RunFolder(Path(name).parent)
    return run.read_results() if Path(name).name == run.checkpoint.name else Results()
