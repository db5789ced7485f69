"""Find every command and code block that the documentation prints, and the stage in which each of them runs."""

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
# The first words of commands. Inline code that starts with another word is not a command.
PROGRAMS = (
    "python", "python3", "pip", "torchrun", "tensorboard", "pytest", "sphinx-build", "docker", "ruff", "mypy", "tar",
    "grep", "eval", ".", "particle-grid", "particle-grid-train", "particle-grid-eval", "particle-grid-play",
    "particle-grid-rank", "sbatch", "srun",
)  # fmt: skip
INCLUDED = ("{include} ../CONTRIBUTING.md", "{include} ../CHANGELOG.md")
LANGUAGES = ("bash", "python", "toml", "text", "{eval-rst}", "{toctree}", *INCLUDED)
MARKERS = ("file", "continued", "ci")  # <!-- file: NAME --> before a fence: the block is the content of that file
SEEN = re.compile(
    r"\bpython3? (?:-m [a-z]|bench/|examples/)|\bpip install (?=-e|\"|\\\")|\btorchrun --|\btensorboard --"
    r"|\bsphinx-build |\bdocker (?:build|run) "
)
# What can follow a command in a sentence: a backtick, a comment, a parenthesis, a gap, or a punctuation mark.
ENDS = re.compile(r"`|\s+#|\s+\((?=[A-Za-z{-])|\s{2,}|(?<=[\"\w\]])[).:;,]+(?=\s|$)")
STAGES = ("quick", "release", "elsewhere")

# Placeholders that readers replace by their own values. Folders are replaced when a command runs.
FILLED = {
    "task=TASK action=FORM seed=SEED": "task=center action=discrete seed=0",
    "particle_grid.NAME": "particle_grid.train",
    "particle_grid NAME --help": "particle_grid check --help",
    "new task NAME": "new task my_task",
    "check module:Class": "check center",
    "check {place}": "check center",
    "{small}": "task=center experiment=smoke",
    "task={place}": "task=center",
    "policy={place}": "policy=mlp",
    "policy.head={place}": "policy.head=beta",
    "particle_grid.study NAME": "particle_grid.study smoke",
    "partition=NAME": "partition=all",
    '"$@"': "task=center",
    "--master-addr=HOST": "--master-addr=localhost",
    "checkpoints=[...]": "checkpoints=[pretrained]",
    "checkpoint=PATH": "checkpoint=pretrained task=group",
    "report {folder}": "report outputs/SWEEP",
    "[{extra}]": "[dev]",
    "/proc/PID/": "/proc/$$/",
    "WHEELS=URL": "WHEELS=https://download.example",
}
FOLDERS = ("outputs/RUN", "outputs/A", "outputs/B", "outputs/SWEEP")
WORDS = ("HELLO", "WHEELS", "PWD", "GRU")  # look like placeholders, but are literal
PLACEHOLDER = re.compile(r"\b[A-Z]{2,}\b(?!=)|\.\.\.|\{\w+\}")

# Commands that take seconds, in the order of their pages; `python -m pytest -m slow` runs them. A final * matches any
# rest.
QUICK = (
    "python -m particle_grid",
    "python -m particle_grid.train --help*",
    "particle-grid train --help",
    'eval "$(particle-grid-train -sc install=bash)"',
    "python -m particle_grid.train task=forage hydra.run.dir=outputs/first *",
    "python -m particle_grid.eval checkpoint=outputs/first/checkpoint.pt *",
    "python -m particle_grid.train task=forage action=continuous hydra.run.dir=outputs/second *",
    "python -m particle_grid.train -m task=forage action=discrete,continuous seed=0,1 experiment=smoke *",
    "python -m particle_grid.report outputs/sweep",
    "python -m particle_grid.export checkpoint=pretrained/group-discrete path=group.onnx",
    "python -m particle_grid.export checkpoint=pretrained format=safetensors",
    "python -m particle_grid.web out=page.html",
    "python -m particle_grid.train -m hydra/launcher=joblib experiment=smoke *",
    "python -m pytest tests/learn/test_trainer.py -k resumed",
)
# Commands that the tests do not run, with the reason. Their options and keys are checked all the same.
HOURS = "takes hours: tests run a shorter command"
SERVICE = "needs an extra and an account: tests/experiments/test_loggers.py trains with each logger, offline"
WRITES = "rewrites a file of the package"
GPU = "is for a GPU: tests/test_bench.py and tests/learn/test_graphs.py run the same code on a CPU"
NAME = "the name of a command, printed with arguments elsewhere"
CI = ".ci/run and .ci/full run it"
ELSEWHERE = {
    "python3 -m venv .venv": CI,
    ". .venv/bin/activate": CI,
    "pip install *": "needs a package index; " + CI,
    "python -m pytest": CI,
    "python -m pytest -m slow": CI,
    "python -m pytest -m release": CI,
    "python -m pytest -n 0 -x": "the default suite, in one process",
    "python -m pytest --hypothesis-profile=explore": "the default suite, with other examples each time",
    "ruff *": "tests/test_house.py checks the sources with it",
    "mypy": "tests/test_house.py checks the sources with it",
    "sphinx-build *": "tests/test_docs.py builds the site",
    "docker *": "needs Docker",
    "python -m particle_grid.play *": "serves a page until Ctrl-C: tests/test_play.py",
    "python -m particle_grid.train watch=true": "tests/browser/test_live.py",
    "python -m particle_grid.train task=forage watch=true": "tests/browser/test_live.py",
    "python -m particle_grid.train logger=[tensorboard,wandb]": SERVICE,
    "python -m particle_grid.train task=group logger=[tensorboard,wandb]": SERVICE,
    "torchrun --nnodes=2 *": "needs two machines: tests/test_processes.py starts both nodes on one",
    "sbatch *": "needs Slurm: tests/test_processes.py runs the script with a substitute",
    "python -m particle_grid.train task=center resume=auto": "tests/test_processes.py runs examples/train.sbatch",
    "python -m particle_grid.train task=group name=large resume=auto": HOURS,
    "python -m particle_grid.study full *": HOURS,
    "python tests/experiments/recompute.py": "tests/experiments/test_archives.py calls it",
    "python examples/benchmarl_mappo.py": "BenchMARL does not work with the TorchRL that is installed for the tests",
    "python -m particle_grid.baselines*": WRITES,
    "python -m particle_grid.browser.build": WRITES,
    "python bench/learn.py --out outputs/learn --ship": WRITES,
    "python bench/learn.py --out outputs/learn": HOURS,
    "python bench/learn.py --tasks center forage group herd optimize predator_prey puffer scatter --seeds 3": HOURS,
    "python bench/soak.py": HOURS,
    "python -m particle_grid.train task=herd": HOURS,
    "python docs/paper.py": "tests/test_docs.py checks the page",
    "python docs/generate.py": "rewrites pages: tests/test_docs.py compares what it would write",
    "python bench/search.py *": HOURS,
    "python bench/distil.py*": HOURS,
    "python bench/foreign.py*": HOURS,
    "python bench/gpu.py --check": GPU,
    "python bench/gpu.py --profile": GPU,
    "python bench/gpu.py --matrix *": GPU,
    "python -m particle_grid.train task=group experiment=gpu": GPU,
    "python -m particle_grid.train task=group trainer.device=cuda": GPU,
    "python -m particle_grid.train task=group trainer.graphs=off": GPU,
    "python bench/gpu.py --device cpu --budget 60": "tests/test_bench.py runs it",
    "python -m pytest tests/learn/test_gpu.py": "part of the default suite",
    "python -m particle_grid.study reduced": HOURS,
    "python -m particle_grid.study ladder": HOURS,
    "python -m particle_grid.study confirm": HOURS,
    "python -m particle_grid.study still": HOURS,
    "python -m particle_grid new": NAME,
    "python -m particle_grid check": NAME,
    "python -m particle_grid.train": NAME,
    "python -m particle_grid.eval": NAME,
    "python -m particle_grid.play": NAME,
    "python -m particle_grid.rank": NAME,
    "python -m particle_grid.study": NAME,
    "python -m particle_grid.report": NAME,
    "python -m particle_grid.export": NAME,
    "python -m particle_grid.web": NAME,
}


class UnreadableError(ValueError):
    """A page prints something that this module cannot extract."""


@dataclass(frozen=True)
class Printed:
    """A command (its language is bash) or a code block: page, line, language, text, and the marker before its fence."""

    page: str
    line: int
    language: str
    text: str
    marker: str = ""

    @property
    def stage(self) -> str:
        """The stage in which the command runs: one of STAGES."""
        if any(matches(pattern, self.text) for pattern in QUICK):
            return "quick"
        return "elsewhere" if any(matches(pattern, self.text) for pattern in ELSEWHERE) else "release"

    @property
    def file(self) -> str:
        """The name of the file that the block is, from the marker before its fence; empty if there is none."""
        return self.marker.removeprefix("file: ") if self.marker.startswith("file: ") else ""


def matches(pattern: str, text: str) -> bool:
    """Return whether a pattern of QUICK or ELSEWHERE matches a command."""
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern


def pages() -> list[Path]:
    """Return every file that may print a command."""
    found = [*ROOT.glob("*.md"), ROOT / "Dockerfile", ROOT / "pyproject.toml"]
    for folder, kind in (
        ("docs", "md"),
        ("docs", "py"),
        ("conf", "yaml"),
        ("bench", "py"),
        ("examples", "py"),
        ("examples", "sbatch"),
    ):
        found += (ROOT / folder).rglob(f"*.{kind}")
    for folder in ("particle_grid", "hydra_plugins"):
        found += (ROOT / folder).rglob("*.py")
    return sorted(found)


@cache
def printed() -> tuple[Printed, ...]:
    """Return everything that all pages print."""
    return tuple(item for page in pages() for item in extract(str(page.relative_to(ROOT)), page.read_text("utf-8")))


def commands(page: str | None = None) -> list[Printed]:
    """Return the commands of one page, or of all pages."""
    return [item for item in printed() if item.language == "bash" and page in (None, item.page)]


def first_printed(item: Printed) -> bool:
    """Return whether a command should run at this place.

    A command that does not depend on earlier ones runs only where it is printed first.
    """
    if "outputs/" in item.text or "$" in item.text or any(other.file for other in printed() if other.page == item.page):
        return True
    return next(other for other in commands() if other.text == item.text) == item


def extract(page: str, text: str) -> list[Printed]:
    """Return the commands and blocks of a page in their order.

    Raises:
        UnreadableError: if something on the page cannot be extracted.
    """
    if page.endswith(".md"):
        blocks = list(fences(page, text))
        prose = without(text, blocks)
        found = [item for block in blocks for item in split(block)] + list(inline(page, prose))
    else:
        if page == "Dockerfile":  # its own instructions are not printed for readers
            text = re.sub(r"(?m)^[^#].*$", "", text)
        found = [Printed(page, line, "bash", part) for line, part in sources(page, text)]
    found = [fill(part) for item in sorted(found, key=lambda item: item.line) for part in joined(item)]
    there = len(SEEN.findall(text))
    taken = sum(len(SEEN.findall(item.text)) for item in found)
    if there > taken:
        raise UnreadableError(f"{page} prints {there} commands, of which {taken} were found: print each one as code.")
    return found


def fences(page: str, text: str) -> Iterator[Printed]:
    """Yield the fenced blocks of a Markdown page."""
    opened: Printed | None = None
    inside: list[str] = []
    before = ""
    for number, line in enumerate(text.splitlines(), 1):
        fence = re.fullmatch(r" *```(.*)", line)
        if opened and fence and not fence[1]:
            yield replace(opened, text="\n".join(inside) + "\n")
            opened = None
        elif opened:
            inside.append(line)
        elif fence:
            if fence[1] not in LANGUAGES:
                raise UnreadableError(
                    f"{page}:{number}: a fence in {fence[1] or 'no language'}: name one of {LANGUAGES}."
                )
            marker = re.fullmatch(r"<!-- (\w+)(?:: (.*))? -->", before)
            if marker and marker[1] not in MARKERS:
                raise UnreadableError(f"{page}:{number}: the marker {before} is not known: use one of {MARKERS}.")
            opened = Printed(page, number, fence[1], "", ": ".join(filter(None, marker.groups())) if marker else "")
            inside = []
        before = line.strip()
    if opened:
        raise UnreadableError(f"{page}:{opened.line}: the fence is never closed.")


def without(text: str, blocks: list[Printed]) -> str:
    """Return a Markdown page with its fenced blocks blanked, so that lines keep their numbers."""
    lines = text.splitlines()
    for block in blocks:
        end = block.line + block.text.count("\n") + 1
        lines[block.line - 1 : end] = [""] * (end - block.line + 1)
    return "\n".join(lines)


def split(block: Printed) -> Iterator[Printed]:
    """Yield the commands of a Bash block, without comments and with continued lines joined; other blocks unchanged."""
    if block.language != "bash":
        yield block
        return
    whole = re.sub(r"\s*\\\n\s*", " \0", block.text)  # each \0 marks a line that was joined
    for number, line in zip(numbers(whole, block.line + 1), whole.splitlines(), strict=True):
        bare, comment = re.fullmatch(r"(.*?)((?:^|\s+)#.*)?", line.replace("\0", "").strip()).groups(default="")
        yield from (replace(block, line=number, text=part) for _, part in sources("", comment))
        if not bare:
            continue
        try:
            shlex.split(bare)
        except ValueError as error:
            raise UnreadableError(f"{block.page}:{number}: {bare} is not a command ({error}).") from error
        yield replace(block, line=number, text=bare)


def numbers(text: str, first: int) -> Iterator[int]:
    """Yield the number of each line of a text in which \\0 marks a line that was joined to the previous one."""
    for line in text.splitlines():
        yield first
        first += 1 + line.count("\0")


def inline(page: str, prose: str) -> Iterator[Printed]:
    """Yield the commands among the inline code of a Markdown page."""
    for match in re.finditer(r"(?<!`)`([^`]+)`(?!`)", prose):
        words = match[1].split()
        if words[0] in PROGRAMS and len(words) > 1:
            yield Printed(page, prose.count("\n", 0, match.start()) + 1, "bash", " ".join(words))


def sources(page: str, text: str) -> Iterator[tuple[int, str]]:
    """Yield the commands in the strings of a Python file, or in any line of another file."""
    for first, string in strings(text) if page.endswith(".py") else [(1, text)]:
        for number, line in enumerate(string.splitlines(), first):
            while match := SEEN.search(line):
                rest = line[match.start() :]
                end = ENDS.search(rest, match.end() - match.start())
                cut = end.start() if end else len(rest)
                yield number, rest[:cut].strip()
                line = rest[cut:]


def strings(text: str) -> Iterator[tuple[int, str]]:
    """Yield the strings of a Python file with the number of their first line. Replacement fields become {NAME}."""
    inner: set[int] = set()  # parts of f-strings, which are yielded as a whole
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.JoinedStr):
            inner |= {id(part) for part in node.values}
            holes = (
                part if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}" for part in node.values
            )
            yield node.lineno, "".join(part if isinstance(part, str) else part.value for part in holes)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.lineno, node.value


def joined(item: Printed) -> Iterator[Printed]:
    """Yield the commands that && joins, one by one."""
    parts = item.text.split(" && ") if item.language == "bash" else [item.text]
    return (replace(item, text=part) for part in parts)


def fill(item: Printed) -> Printed:
    """Return a command with its placeholders replaced, except for folders.

    Raises:
        UnreadableError: if a placeholder is unknown.
    """
    if item.language != "bash":
        return item
    text = item.text
    for placeholder, value in FILLED.items():
        text = text.replace(placeholder, value)
    bare = text
    for folder in FOLDERS:
        bare = re.sub(rf"{folder}(?=\W|$)", "", bare)
    unknown = [word for word in PLACEHOLDER.findall(re.sub(r"\$\w+|^\w+=.*", "", bare)) if word not in WORDS]
    if unknown:
        raise UnreadableError(f"{item.page}:{item.line}: what does {unknown[0]} stand for? Say so in tests/printed.py.")
    program = text.split()[0]
    if program not in PROGRAMS and not is_assignment(text):
        raise UnreadableError(f"{item.page}:{item.line}: {program} is not a program that is known here.")
    return replace(item, text=text)


def is_assignment(text: str) -> bool:
    """Return whether a line of Bash sets a variable, which later commands of the page may use."""
    return re.match(r"[A-Z]+=", text) is not None
