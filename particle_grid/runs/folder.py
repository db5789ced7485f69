"""The folder of a run: the only place that knows which files a run leaves, and who may write them."""

import contextlib
import json
import re
import shlex
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, ListConfig, OmegaConf

from particle_grid.runs.results import Results, read_results
from particle_grid.runs.versions import upgraded_config, upgraded_overrides
from particle_grid.settings.errors import explain
from particle_grid.settings.run_config import GROUPS, RunConfig, flatten
from particle_grid.support import atomic, records
from particle_grid.support.errors import UserError

HYDRA = ".hydra"  # folder of Hydra's own notes about a run
ANOTHER = "choose another folder (hydra.run.dir=PATH)"  # for a run that cannot train in the one it was given
HYDRA_NOTES = ("config.yaml", "hydra.yaml", "overrides.yaml")
REPAIR = "Remove this run's folder and repeat the command to run it again."
FINISHED = "finished"
PRUNED = "pruned"
FAILED = "failed"
UNFINISHED = "unfinished"
SPEED = "perf/steps_per_second"  # name of a scalar that every run logs in each iteration


class OccupiedError(UserError):
    """A folder belongs to another run. Nothing in it is touched, so the reason is not written there either."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run, which need not exist yet.

    config: the settings it was started with, by this program. overrides: those of its command line, also once the run
    has been resumed here. results: makes it finished. error, pruned: why it failed or ended early. output: what a run
    prints while others print to the same terminal. scalars: of logger=csv. service_runs: by which id each service knows
    the run.
    """

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.pt"

    @property
    def results(self) -> Path:
        return self.path / "results.json"

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def overrides(self) -> Path:
        return self.path / "overrides.yaml"

    @property
    def error(self) -> Path:
        return self.path / "error.txt"

    @property
    def pruned(self) -> Path:
        return self.path / "pruned.txt"

    @property
    def output(self) -> Path:
        return self.path / "output.txt"

    @property
    def scalars(self) -> Path:
        return self.path / "scalars.csv"

    @property
    def service_runs(self) -> Path:
        return self.path / "service_runs.json"

    @property
    def video(self) -> Path:
        return self.path / "policy.gif"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    def events(self) -> list[Path]:
        """Return TensorBoard's files."""
        return sorted(self.path.glob("events.out.tfevents.*"))

    def status(self) -> str:
        """Return FINISHED, PRUNED, FAILED or UNFINISHED."""
        files = {FINISHED: self.results, PRUNED: self.pruned, FAILED: self.error}
        return next((status for status, path in files.items() if path.exists()), UNFINISHED)

    @property
    def ended(self) -> bool:
        """Whether the run needs nothing more: it is finished or was pruned."""
        return self.status() in (FINISHED, PRUNED)

    @property
    def started(self) -> bool:
        """Whether the folder holds something that a run with other settings must not continue."""
        return self.results.exists() or self.checkpoint.exists()

    @property
    def trained(self) -> bool:
        """Whether the run got far enough to log something about its training to its folder."""
        logs = [path for path in [*self.events(), self.scalars] if path.is_file()]
        return any(SPEED.encode() in path.read_bytes() for path in logs)

    def reason(self) -> str:
        """Return the last line about why a run failed or was pruned, or nothing."""
        path = {PRUNED: self.pruned, FAILED: self.error}.get(self.status())
        if path is None:
            return ""
        lines = records.read_text(path, errors="replace").strip().splitlines() or [""]
        return lines[-1].removeprefix("error: ")

    # What a run writes.

    def write_config(self, config: RunConfig) -> None:
        """Write the settings of the run."""
        atomic.write(self.config, OmegaConf.to_yaml(OmegaConf.create(config.to_dict())).encode())

    def write_overrides(self, overrides: Sequence[str]) -> None:
        """Write the overrides of the command line that started the run."""
        atomic.write(self.overrides, OmegaConf.to_yaml(list(overrides)).encode())

    def write_pruned(self, reason: str) -> None:
        """Write why the run ended early."""
        atomic.write(self.pruned, f"{reason}\n".encode())

    def write_service_runs(self, ids: Mapping[str, str]) -> None:
        """Write by which id each service, such as wandb, knows the run."""
        atomic.write(self.service_runs, f"{json.dumps(dict(ids))}\n".encode())

    def write_error(self, error: Exception) -> None:
        """Write where an error came from, and the sentence about it as last line."""
        text = "".join(traceback.format_exception(error)) + f"error: {explain(error)}\n"
        with contextlib.suppress(OSError):  # such as a folder that no longer exists: the reason has been printed
            atomic.write(self.error, text.encode())

    def remove_results(self) -> None:
        """Remove the results of a run that trains further."""
        for path in (self.results, self.pruned):
            path.unlink(missing_ok=True)

    # What others read.

    def read_config(self) -> dict[str, Any]:
        """Return the settings of the run, nested, with their current names.

        These are those that Hydra composed if the run has written no others.

        Raises:
            UserError: if the file is damaged.
        """
        path = self.config if self.config.exists() else self.path / HYDRA / "config.yaml"
        node = records.read_yaml(path, DictConfig, REPAIR)
        values: Any = OmegaConf.to_container(node, resolve=False)  # a file may come from elsewhere: resolve nothing
        return upgraded_config(values)

    def read_overrides(self) -> list[str]:
        """Return the overrides that the run was started with, with their current names.

        Raises:
            UserError: if the file is damaged.
        """
        path = self.overrides if self.overrides.exists() else self.path / HYDRA / "overrides.yaml"
        values: Any = OmegaConf.to_container(records.read_yaml(path, ListConfig, REPAIR))
        return upgraded_overrides(str(override) for override in values)

    def read_results(self) -> Results:
        """Return the results of a finished run, and empty ones for any other.

        Raises:
            UserError: if the file is damaged.
        """
        return read_results(self.results, REPAIR) if self.results.exists() else Results()

    def read_service_runs(self) -> dict[str, str]:
        """Return by which id each service knows the run. Raise UserError if the file is damaged."""
        if not self.service_runs.exists():
            return {}
        remedy = "Remove it to start new runs in the services."
        ids = records.read_json(self.service_runs, remedy)
        if not isinstance(ids, dict) or not all(isinstance(value, str) and value for value in ids.values()):
            raise UserError(f"{self.service_runs} does not hold the ids of runs.", remedy)
        return ids

    def resume_override(self) -> str:
        """Return the override that resumes the run, as one types it."""
        return typed("resume", self.checkpoint)

    def folder_override(self) -> str:
        """Return the override that lets a run train in this folder, as one types it."""
        return typed("hydra.run.dir", self.path)

    # Who may write.

    @contextlib.contextmanager
    def for_new_run(self, resume: str | None) -> Iterator[None]:
        """Keep the folder for this process, which starts a run in it or continues the one in `resume`.

        Raises:
            OccupiedError: if another process trains there, or the folder holds a run that this one would overwrite.
        """
        with held(self.lock, f"trains there: {ANOTHER}, or wait for it."):
            if self.checkpoint.exists() and not self._is_checkpoint(resume):
                raise OccupiedError(
                    f"{self.path} holds a run, whose checkpoint this one would overwrite: continue it with "
                    f"{self.resume_override()}, or {ANOTHER}."
                )
            if not self.checkpoint.exists() and self.ended:
                raise OccupiedError(
                    f"{self.path} holds the results of a run, which this one would overwrite: {ANOTHER}."
                )
            self._refuse_foreign_files()
            self._clear()
            with self._unless_unlearnt():
                yield

    @contextlib.contextmanager
    def for_repeated_run(self, config: RunConfig, swept: bool) -> Iterator[None]:
        """Keep the folder for this process, which starts or continues the run in it; wait for another one first.

        Args:
            config: the settings of the run.
            swept: whether it is a job of a sweep, whose folder is named after its settings.

        Raises:
            OccupiedError: if the folder holds a run with other settings.
        """
        with held(self.lock, "trains there", wait=True):
            self._refuse_foreign_files()
            if swept or self.started:
                self._refuse_other_settings(config, swept)
            with (
                contextlib.nullcontext() if swept else self._unless_unlearnt()
            ):  # a sweep keeps the reason of a failure
                if not self.ended:
                    self.write_config(config)
                    self.error.unlink(missing_ok=True)
                    self._clear()
                yield

    def remove_unlearnt(self, notes: str) -> bool:
        """Remove the folder of a run that ended before it learnt anything, and return whether it is gone.

        This happens only if it holds nothing but Hydra's notes and a lock that no process holds. Other files stay.
        """
        mine = {notes, self.lock.name}
        if not self.path.is_dir() or not {notes} <= {path.name for path in self.path.iterdir()} <= mine:
            return False
        for name in HYDRA_NOTES:
            (self.path / notes / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty, or the current folder of a terminal
            (self.path / notes).rmdir()
            self.lock.unlink(missing_ok=True)
            self.path.rmdir()
        return not self.path.exists()

    def unlink_links(self, notes: str | None) -> None:
        """Remove links from the places where Hydra is about to write, since Hydra would follow them."""
        if notes:
            for path in (self.path / notes, *(self.path / notes / name for name in HYDRA_NOTES)):
                if path.is_symlink():
                    path.unlink()

    def _is_checkpoint(self, path: str | None) -> bool:
        return bool(path) and Path(str(path)).exists() and self.checkpoint.samefile(str(path))

    @contextlib.contextmanager
    def _unless_unlearnt(self) -> Iterator[None]:
        """Remove what a run leaves that ends in this context by an exception, before it has learnt anything."""
        try:
            yield
        except BaseException:  # also KeyboardInterrupt
            if not (self.started or self.trained):
                self._clear()
                self.config.unlink(missing_ok=True)
            raise

    def _clear(self) -> None:
        """Remove what a run leaves that ends before its first checkpoint, except its settings."""
        if not self.checkpoint.exists():
            for path in [*self.events(), self.scalars, self.service_runs, self.overrides]:
                path.unlink(missing_ok=True)

    def _refuse_foreign_files(self) -> None:
        """Refuse a folder with files that a run would replace and that no run left: a run writes its config first."""
        ours = (self.config, self.overrides, self.scalars, self.service_runs)
        theirs = [path for path in ours if path.exists()] + self.events()
        if theirs and not self._config_groups() >= set(GROUPS):
            raise OccupiedError(
                f"{self.path} holds {theirs[0].name}, which is damaged or not from this program, and this run would "
                f"replace it: choose another folder."
            )

    def _config_groups(self) -> set[str]:
        """Return the groups of the run's config, none if there is no such file."""
        try:
            return {str(key) for key in records.read_yaml(self.config, DictConfig, "")}
        except (OSError, ValueError):
            return set()

    def _refuse_other_settings(self, config: RunConfig, swept: bool) -> None:
        if not self.config.exists():
            return
        in_sweep = "choose another hydra.sweep.dir, or leave hydra.sweep.subdir as it is."
        alone = f"choose another name, or continue it with {self.resume_override()} instead of resume=auto."
        there, here = dict(flatten(self.read_config())), config.flat()
        keys = (there.keys() | here.keys()) - {"logger"}  # which does not change what the run computes
        if differ := sorted(key for key in keys if there.get(key) != here.get(key)):
            key = differ[0]
            raise OccupiedError(
                f"{self.path} holds a run with {key}={there.get(key)}, and this one has {key}={here.get(key)}: "
                f"{in_sweep if swept else alone}"
            )


@contextlib.contextmanager
def held(lock: Path, doing: str, wait: bool = False) -> Iterator[None]:
    """Hold a lock file.

    Args:
        lock: its path.
        doing: what another process that holds it does and, unless this one waits for it, what to do about that.
        wait: until no other process holds it.

    Raises:
        OccupiedError: if another process holds it, and this one does not wait.
    """
    file = FileLock(lock)
    try:
        file.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise OccupiedError(f"{lock.parent} is in use by another process that {doing}") from None
        print(f"{lock.parent.name}: waiting for another process that {doing}")
        file.acquire()
    try:
        yield
    finally:
        file.release()


def typed(key: str, path: Path) -> str:
    """Return an override whose value is a path, as one types it."""
    plain = re.fullmatch(r"[\w./-]+", str(path))
    return f"{key}={path}" if plain else shlex.quote(f"{key}={quoted(path)}")


def quoted(path: Path) -> str:
    """Return a path as a value on Hydra's command line, where brackets and commas have a meaning."""
    return QuotedString(str(path), Quote.single).with_quotes()
