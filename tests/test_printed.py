"""Everything that README, docs, help texts and docstrings print works as printed.

Every command belongs to one stage (tests/printed.py). Quick commands run with the slow tests and the others before a
release, as printed and in the order of their pages. A short list names the commands that cannot run here, and why.
All commands are checked for modules, options and keys that do not exist.
"""

import argparse
import importlib
import importlib.util
import itertools
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from particle_grid import train
from particle_grid.__main__ import AUTHORING, module_of
from particle_grid.authoring.new import write
from tests.cases import needs_jit
from tests.printed import (
    ELSEWHERE,
    FILLED,
    FOLDERS,
    PROGRAMS,
    QUICK,
    ROOT,
    UnreadableError,
    commands,
    extract,
    fences,
    first_printed,
    is_assignment,
    matches,
    pages,
    printed,
    without,
)
from tests.terminal import type_page

COMMANDS = [item for item in commands() if not is_assignment(item.text)]
PAGES = sorted({item.page for item in printed()})
OWN = "docs/own.md"  # has its own test
# The page on which each Python block runs: the first that prints it.
BLOCKS = {item.text: item.page for item in reversed(printed()) if item.language == "python"}
TAG = re.compile(r"`((?:env|eval|loss|optim|perf|policy|value)/\w+)`")
SETTINGS = re.compile(r"`((?:(?:hydra|trainer|world|policy|action)(?:[./][\w./]+)?=[^`\s]+\s*)+)`")
# A warning of Hydra about its plugins. The command silences it when it is imported, but pytest resets the filters.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*is validated against ConfigStore schema with the same name")


def pages_in(stage):
    """Return the pages on which a command of this stage should run."""
    return sorted({item.page for item in COMMANDS if item.stage == stage and first_printed(item)} - {OWN})


class Parsed(Exception):
    """Raised instead of running a command, once it has parsed its arguments."""


@pytest.fixture
def understood(monkeypatch, invoke, tmp_path):
    """Return a function that lets a command's module parse arguments without running it, and returns the result."""
    parse = argparse.ArgumentParser.parse_args

    def stop(parser, *arguments):
        raise Parsed(parse(parser, *arguments))

    def run(module, arguments):
        package, _, name = module.__name__.rpartition(".")
        if package and (ROOT / "conf" / f"{name}.yaml").exists():
            code, out, err = invoke(module.main, *arguments, "--cfg", "job")
            assert code == 0, err
            return out
        with monkeypatch.context() as patch:
            patch.setattr(argparse.ArgumentParser, "parse_args", stop)
            try:
                code, out, err = invoke(module.main, *arguments)
            except Parsed as parsed:
                return parsed.args[0]
        assert code == 0, err
        return out

    return run


@pytest.fixture
def own_files(monkeypatch, tmp_path):
    """Return a function that writes the files that a page tells readers to make, in a folder on Python's path."""
    made = []

    def make(page):
        for item in printed():
            if item.page == page and item.file and "/" not in item.file:
                (tmp_path / item.file).write_text(item.text, "utf-8")
                made.append(item.file.removesuffix(".py"))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.chdir(tmp_path)
        for item in commands(page):
            match item.text.split():
                case ["python", "-m", "particle_grid", "new", kind, name] if not Path(f"{name}.py").exists():
                    write(kind, name)
                    made.append(name)
        importlib.invalidate_caches()

    yield make
    for name in made:
        sys.modules.pop(name, None)


def alternatives(arguments):
    """Return the arguments of single runs in which every value of a sweep occurs; those of a single run unchanged."""
    if not {"-m", "--multirun"} & set(arguments):
        return [arguments]
    columns = []
    for argument in arguments:
        if argument in ("-m", "--multirun"):
            continue
        override = OverridesParser.create().parse_override(argument)
        if override.is_interval_sweep():
            columns.append([f"{override.get_key_element()}={override.value().start}"])
        elif override.is_sweep_override():
            columns.append([f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()])
        else:
            columns.append([argument])
    rows = itertools.zip_longest(*columns)
    return [[value or column[-1] for value, column in zip(row, columns, strict=True)] for row in rows]


def check_module(name, arguments, understood):
    """Assert that a module of the package exists and accepts its arguments."""
    assert importlib.util.find_spec(name), f"there is no module {name}"
    if not arguments or "--help" in arguments:
        return
    for each in alternatives(arguments):
        result = understood(importlib.import_module(name), each)
        if name.endswith(".study"):
            assert (ROOT / "conf" / "study" / f"{result.plan}.yaml").exists(), f"there is no plan {result.plan}"


def check_script(path, arguments, understood, monkeypatch):
    """Assert that a script of bench/ or examples/ exists and accepts its arguments."""
    assert (ROOT / path).is_file(), f"there is no {path}"
    if path.startswith("bench/"):
        monkeypatch.syspath_prepend(ROOT / "bench")
        understood(importlib.import_module(Path(path).stem), arguments)
    else:
        assert not arguments, f"{path} takes no arguments"


def check_pytest(arguments):
    """Assert that pytest would find a test."""
    paths = [ROOT / argument for argument in arguments if argument.startswith("tests")]
    for path in paths:
        assert path.exists(), f"there is no {path.name}"
    if "-k" in arguments:
        word = arguments[arguments.index("-k") + 1]
        files = [file for path in paths for file in (path.rglob("test_*.py") if path.is_dir() else [path])]
        assert any(re.search(rf"def test_\w*{word}", file.read_text("utf-8")) for file in files), f"no test {word}"


def as_python(program, words):
    """Return a command that starts a module in another way as the command of Python for it, and any other unchanged."""
    if program == "sbatch":
        path, *words = words
        assert (ROOT / path).is_file(), f"there is no {path}"
        program = "particle-grid"
        words = ["train", *words]
    if program == "torchrun":
        program = "python"
        words = words[words.index("-m") :]
    elif program == "docker" and words[0] == "run":
        program = "particle-grid"
        words = words[words.index("particle_grid") + 1 :]
    if program == "particle-grid":
        name, *words = words
        program = "python"
        words = ["-m", f"particle_grid.{name}", *words]
    elif program == "pytest":
        program = "python"
        words = ["-m", "pytest", *words]
    return [program, *words]


def check(item, understood, monkeypatch):
    """Assert that everything a command names exists."""
    variables = dict(line.text.split("=", 1) for line in commands(item.page) if is_assignment(line.text))
    text = re.sub(r"\$(\w+)", lambda name: variables.get(name[1], f"${name[1]}").strip('"'), item.text)
    program, *words = shlex.split(text)
    match as_python(program, words):
        case ["python", "-m", "pytest", *arguments]:
            check_pytest(arguments)
        case ["python", "-m", "particle_grid", name, *arguments] if name in AUTHORING:
            check_module(module_of(name), arguments, understood)
        case ["python" | "python3", "-m", name, *arguments] if name.startswith("particle_grid"):
            check_module(name, arguments, understood)
        case ["python" | "python3", "-m", name, *_]:
            assert importlib.util.find_spec(name), f"there is no module {name}"
        case ["python", path, *arguments]:
            check_script(path, arguments, understood, monkeypatch)
        case ["pip", "install", *arguments]:
            known = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE))
            asked = re.findall(r"\w+", "".join(re.findall(r"\[(.*?)\]", " ".join(arguments))))
            assert set(asked) <= known, f"there is no extra {asked}"
        case ["tar", _, path, *_] | ["sphinx-build", "-W", path, *_] | ["sphinx-build", path, *_]:
            assert (ROOT / path).exists(), f"there is no {path}"
        case _:
            assert program in PROGRAMS


@pytest.mark.parametrize(
    "text",
    [
        "```bash\npython -m particle_grid\n",
        "```\npython -m particle_grid\n```\n",
        "```fortran\nend\n```\n",
        "<!-- flie: a.py -->\n```python\n1\n```\n",
        "```bash\npython -m particle_grid.eval checkpoint='a\n```\n",
        "```bash\npython -m particle_grid.train task=WHATEVER\n```\n",
        "```bash\nmake all\n```\n",
        "Now run python -m particle_grid.train task=group and wait.\n",
        "`python -m particle_grid.train task=...` trains.\n",
    ],
)
def test_a_page_with_a_command_that_cannot_be_extracted_is_refused(text):
    with pytest.raises(UnreadableError, match=r"page\.md"):
        extract("page.md", text)


def test_commands_are_found_in_fences_comments_code_strings_and_help():
    fence = "```bash\npython -m particle_grid.train \\\n    task=group  # or: pip install -e .\n```\n"
    page = f"Try `python -m\nparticle_grid`:\n\n{fence}"
    assert [(item.line, item.text) for item in extract("page.md", page)] == [
        (1, "python -m particle_grid"),
        (5, "pip install -e ."),
        (5, "python -m particle_grid.train task=group"),
    ]
    source = '"""Trains: python -m particle_grid.train task=group (see --help)."""\n'
    source += 'x = f"do `python -m particle_grid.report {folder}`"\n'
    assert [item.text for item in extract("a.py", source)] == [
        "python -m particle_grid.train task=group",
        "python -m particle_grid.report outputs/SWEEP",
    ]
    assert [item.text for item in extract("a.yaml", '# Needs: pip install -e ".[sweep]".\n')] == [
        'pip install -e ".[sweep]"'
    ]


def test_every_page_is_read_and_the_most_used_pages_print_commands():
    assert len(COMMANDS) > 100
    assert {"README.md", "CONTRIBUTING.md", "Dockerfile", "conf/train.yaml", "bench/sim.py", OWN} <= set(PAGES)
    assert {str(path.relative_to(ROOT)) for path in pages()} >= set(PAGES)


@pytest.mark.parametrize("pattern", [*QUICK, *ELSEWHERE])
def test_every_list_entry_matches_a_printed_command_of_one_stage(pattern):
    found = [item for item in COMMANDS if matches(pattern, item.text)]
    assert found, "nothing prints this any more"
    for item in found:
        stages = [any(matches(each, item.text) for each in entries) for entries in (QUICK, ELSEWHERE)]
        assert sum(stages) == 1, f"{item.text} is in two stages"


def test_every_known_placeholder_is_printed():
    everything = "".join(path.read_text("utf-8") for path in pages())
    assert [word for word in [*FOLDERS, *FILLED] if word not in everything] == []


@pytest.mark.parametrize("page", sorted({item.page for item in COMMANDS}))
def test_a_page_names_only_modules_options_and_keys_that_exist(page, understood, own_files, monkeypatch):
    own_files(page)
    wrong = []
    for item in commands(page):
        if is_assignment(item.text) or not first_printed(item):
            continue
        try:
            check(item, understood, monkeypatch)
        except AssertionError as error:
            wrong.append(f"{page}:{item.line}: {item.text}: {error}")
    script = "\n".join(item.text for item in commands(page))
    shell = subprocess.run(["bash", "-n", "-c", script], capture_output=True, text=True)
    assert not wrong + shell.stderr.splitlines(), "\n".join([*wrong, shell.stderr])


@pytest.mark.parametrize(
    "text",
    [
        "python -m particle_grid.trian task=group",
        "python -m particle_grid.train task=grup",
        "python -m particle_grid.train -m trainer.learning_rat=1e-3,1e-4",
        "python -m particle_grid.study reduced --dryrun",
        "python -m particle_grid.study redused",
        "python bench/sim.py --agent 4096 --task group --second",
        "python bench/sims.py",
        "python -m pytest tests/test_golden.py -k no_such_test",
        'pip install -e ".[no_such_extra]"',
        "torchrun --standalone --nproc-per-node=2 -m particle_grid.train task=forag",
        "docker run --rm particle_grid train tsk=forage",
    ],
)
def test_a_misspelt_word_of_a_command_is_found(text, understood, monkeypatch):
    [item] = extract("page.md", f"```bash\n{text}\n```\n")
    with pytest.raises((AssertionError, ModuleNotFoundError)):
        check(item, understood, monkeypatch)


def test_the_settings_named_in_a_text_exist(understood):
    named = set()
    for path in pages():
        if path.suffix == ".md":
            text = path.read_text("utf-8")
            named |= set(SETTINGS.findall(without(text, list(fences(path.name, text)))))
    assert len(named) > 20
    for settings in sorted(named):
        context = ["hydra/sweeper=optuna"] if settings.startswith("hydra.sweeper") else []
        understood(train, context + settings.replace("=NAME", "=all").split())


@needs_jit("millions of agent-steps: minutes of plain Python")
@pytest.mark.parametrize("page", sorted(set(BLOCKS.values())))
def test_the_python_of_a_page_runs_as_printed(page, own_files, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    own_files(page)
    names = {}
    for item in printed():
        if item.page == page and item.language == "python":
            code = compile(item.text, f"{page}:{item.line}", "exec")
            if item.marker != "continued":
                names = {"__name__": Path(item.file).stem}
            exec(code, names)
            if "rewards" in names:
                assert len(names["rewards"]) > 0


def test_the_command_above_the_results_table_makes_its_rows(understood, monkeypatch):
    text = (ROOT / "docs" / "learning.md").read_text("utf-8")
    command = next(item.text for item in commands("docs/learning.md") if item.text.startswith("python bench/learn.py"))
    table = text[: text.index("## Transfer")]
    found = re.findall(r"^\| `(\w+)`(, \w+)? \| (discrete|continuous) \| (\d+) \|", table, re.MULTILINE)
    assert len(found) == len(set(found))  # a team has one row in each form
    rows = {(task, action, seeds) for task, _, action, seeds in found}
    monkeypatch.syspath_prepend(ROOT / "bench")
    options = understood(importlib.import_module("learn"), shlex.split(command)[2:])
    assert sorted(rows) == sorted(itertools.product(options.tasks, options.actions, [str(options.seeds)]))


def test_toml_blocks_are_valid():
    for item in printed():
        if item.language == "toml":
            assert tomllib.loads(item.text), f"{item.page}:{item.line}"


def test_every_scalar_named_by_a_page_is_in_tensorboard(call):
    tags = set()
    for task, form in (("group", ["action=continuous", "policy.head=gaussian"]), ("predator_prey", [])):
        quick = ["experiment=smoke", "trainer.total_steps=16384", "clips=0", "evaluations=1"]
        code, _, err = call(train.main, f"task={task}", *form, f"hydra.run.dir={task}", *quick)
        assert code == 0, err
        tags |= set(EventAccumulator(task).Reload().Tags()["scalars"])
    named = {tag for path in pages() if path.suffix == ".md" for tag in TAG.findall(path.read_text("utf-8"))}
    assert {"policy/moved", "policy/entropy"} <= named
    assert named - tags == set()


@pytest.mark.slow
@needs_jit("takes hours as plain Python")
@pytest.mark.parametrize("page", pages_in("quick"))
def test_quick_commands_run_as_printed(page, tmp_path):
    type_page(page, ("quick",), tmp_path, timeout=300)


@pytest.mark.release
@pytest.mark.parametrize("page", pages_in("release"))
def test_all_other_commands_run_as_printed(page, tmp_path):
    type_page(page, ("quick", "release"), tmp_path, timeout=3600)


@pytest.mark.release
def test_the_task_policy_and_head_of_the_page_learn_as_printed(tmp_path):
    terminal = type_page(OWN, ("quick", "release"), tmp_path, timeout=1800)
    results = [json.loads(path.read_text("utf-8")) for path in terminal.folder.glob("outputs/*/results.json")]
    scores = [min(result["sampled"]["normalised_scores"]) for result in results]
    assert len(scores) == sum("particle_grid.train" in item.text for item in commands(OWN))
    assert min(scores) > 0.5
