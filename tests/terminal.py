"""A terminal in a fresh checkout, in which a test types the commands that the documentation prints."""

import contextlib
import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tests.printed import ROOT, commands, first_printed, is_assignment, printed

LINKED = ("bench", "conf", "examples", "tests", "pyproject.toml", "README.md", "LICENSE", "Dockerfile")
SMOKE = "python -m particle_grid.train experiment=smoke evaluations=1 clips=0"
# What readers are assumed to have already. If a command matches the first pattern and no file matches the second, the
# commands in the list are run first.
ASSUMED = (
    (r"outputs/(?:RUN|\*)/", "outputs/*/checkpoint.pt", [f"{SMOKE} hydra.run.dir=outputs/own"]),
    (
        r"outputs/(?:[AB]|\*predator_prey\*)/",
        "outputs/*predator_prey*/checkpoint.pt",
        [f"{SMOKE} task=predator_prey seed={k} hydra.run.dir=outputs/predator_prey_{k}" for k in (0, 1)],
    ),
    (
        r"outputs/SWEEP",
        "outputs/*sweep/*/results.json",
        [f"{SMOKE} seed=0,1 hydra.sweep.dir=outputs/own_sweep --multirun"],
    ),
)
FAULTS = re.compile(r"^(?:Traceback|error)\b.*", re.MULTILINE)  # that no printed command may show


@dataclass(frozen=True)
class Ran:
    """The outcome of a command: its fault (empty if none), its duration in seconds, and its output."""

    command: str
    fault: str
    seconds: float
    output: str

    def __str__(self) -> str:
        tail = "\n".join(self.output.splitlines()[-40:])
        return f"$ {self.command}\n[{self.fault or 'fine'}, {self.seconds:.0f} s]" + (f"\n{tail}" if self.fault else "")


class Terminal:
    """A folder with the files of a checkout except the package, and a shell that runs commands in it.

    The package under test is on the path, so that its kernels need not be compiled again.
    """

    def __init__(self, folder: Path, page: str) -> None:
        self.folder = folder
        for name in LINKED:
            (folder / name).symlink_to(ROOT / name)
        shutil.copytree(ROOT / "docs", folder / "docs")  # commands redraw its pictures
        (folder / "outputs").mkdir()
        for item in printed():
            if item.page == page and item.file and "/" not in item.file:
                (folder / item.file).write_text(item.text, "utf-8")
        self.variables = ""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {"PATH": path, "HOME": os.environ["HOME"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"}

    def type(self, printed: str, timeout: float) -> Ran:
        """Run a command as printed, except that the run folders that readers choose are filled in."""
        for pattern, there, missing in ASSUMED:
            if re.search(pattern, printed) and not list(self.folder.glob(there)):
                for command in missing:
                    if (ran := self._run(command, 300)).fault:
                        return ran
        command = self._with_folders(printed)
        ran = self._serve(command) if command.startswith("tensorboard") else self._run(command, timeout)
        lacking = [path for path in made(shlex.split(command)) if not list(self.folder.glob(path))]
        return Ran(printed, f"there is no {lacking[0]}", ran.seconds, ran.output) if lacking and not ran.fault else ran

    def _with_folders(self, command: str) -> str:
        """Replace outputs/RUN and outputs/SWEEP by the newest run and sweep, and A and B by two competing runs."""

        def newest(pattern: str) -> list[str]:
            files = sorted(self.folder.glob(pattern), key=lambda path: path.stat().st_mtime, reverse=True)
            return [str(path.parent.relative_to(self.folder)) for path in files]

        for name in re.findall(r"outputs/(?:RUN|SWEEP|A|B)\b", command):
            kind = {"outputs/RUN": "*/checkpoint.pt", "outputs/SWEEP": "*sweep/*/results.json"}
            found = newest(f"outputs/{kind.get(name, '*predator_prey*/checkpoint.pt')}")
            place = found[name == "outputs/B"]
            command = command.replace(name, str(Path(place).parent) if name == "outputs/SWEEP" else place)
        return command

    def _start(self, command: str) -> subprocess.Popen:
        script = ["bash", "-e", "-c", self.variables + command]
        place = {"cwd": self.folder, "env": self.environment, "start_new_session": True}
        with (self.folder / ".said").open("w") as log:
            return subprocess.Popen(script, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, **place)

    def _run(self, command: str, timeout: float) -> Ran:
        begin = time.monotonic()
        process = self._start(command)
        try:
            code = process.wait(timeout)
            fault = f"exit code {code}" if code else ""
        except subprocess.TimeoutExpired:
            fault = f"did not end in {timeout:.0f} s"
        finally:
            self._end(process)
        said = self._said()
        if not fault and (found := FAULTS.search(said)):
            fault = f"it says {found[0]}"
        return Ran(command, fault, time.monotonic() - begin, said)

    def _serve(self, command: str) -> Ran:
        """Start a server, fetch its page as soon as it prints the address, and end it."""
        begin = time.monotonic()
        process = self._start(command)
        fault = "it did not say within a minute where its page is"
        try:
            while time.monotonic() - begin < 60 and process.poll() is None:
                if address := re.search(r"http://\S+", self._said()):
                    with urllib.request.urlopen(address[0], timeout=30) as answer:
                        fault = "" if answer.status == 200 else f"its page has status {answer.status}"
                    break
                time.sleep(0.2)
        finally:
            self._end(process)
        return Ran(command, fault, time.monotonic() - begin, self._said())

    def _said(self) -> str:
        return (self.folder / ".said").read_text("utf-8", errors="replace")

    def _end(self, process: subprocess.Popen) -> None:
        """End a command and everything that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def made(words: list[str]) -> list[str]:
    """Return the files, or patterns of files, that a command says it writes."""
    values = dict(word.split("=", 1) for word in words if "=" in word)
    options = dict(itertools.pairwise(words))
    files = [values[key] for key in ("video", "replay", "table") if key in values]
    files += [options[key] for key in ("--json", "--plot") if key in options]
    if folder := values.get("hydra.run.dir"):
        files += [f"{folder}/{name}" for name in ("checkpoint.pt", "results.json", "policy.gif")]
    if folder := values.get("hydra.sweep.dir"):
        files.append(f"{folder}/*/results.json")
    if "particle_grid.report" in words:
        files += [f"{words[-1]}/report/{name}" for name in ("report.html", "runs.csv", "groups.csv")]
    return files


def type_page(page: str, stages: tuple[str, ...], folder: Path, timeout: float) -> Terminal:
    """Run the commands of a page that belong to some stages, in their order, and print the time each of them takes.

    Raises:
        AssertionError: if commands fail, with their output.
    """
    terminal = Terminal(folder, page)
    failed: list[str] = []
    for item in commands(page):
        if is_assignment(item.text):
            terminal.variables += item.text + "\n"
        elif item.stage in stages and first_printed(item):
            ran = terminal.type(item.text, timeout)
            print(f"{page}:{item.line}: {ran.seconds:.0f} s: {item.text}: {ran.fault or 'fine'}", flush=True)
            failed += [f"{page}:{item.line}\n{ran}"] if ran.fault else []
    assert not failed, "\n\n".join(["", *failed])
    return terminal
