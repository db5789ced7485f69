"""The documentation site builds, and its pages name only what exists. tests/test_printed.py runs what they print."""

import ast
import importlib
import math
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import particle_grid
from particle_grid.sim import tasks
from particle_grid.sim.world import Layout, World
from particle_grid.support.errors import UserError
from particle_grid.support.text import as_written
from particle_grid.tasks import __all__ as for_task_authors
from tests.cases import PARAMS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# A file, optionally with a function, class, method or field: `sim/state.py: State`, or `env.py`: `ParticleGrid.step`.
NAMED = re.compile(r"`((?:\w+/)*\w+\.py)(?:(?:: |`: `)([\w.]+))?`")
# A row of the parameters on a task's page: name, default, range, meaning; and the ends of a range, such as (0, 1].
PARAMETER = re.compile(r"\| `task\.(\w+)` \| `([^`]+)` \| ([^|]+) \| [^|]+ \|")
RANGE = re.compile(r"([\[(])(\S+), (\S+)([\])])")


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_its_links_lead_to_existing_files(tmp_path):
    build = [sys.executable, "-m", "sphinx", "-W", "-q", "--keep-going", str(DOCS), str(tmp_path)]
    process = subprocess.run(build, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    api = (tmp_path / "api.html").read_text("utf-8")
    assert "uint8[N, (2 * vision + 1)**2 + 7]" in api
    for page in [*tmp_path.glob("*.html"), *tmp_path.glob("tasks/*.html")]:
        for target in re.findall(r'(?:href|src)="([^"#:]+)[#"]', page.read_text("utf-8")):
            assert (page.parent / target.partition("?")[0]).exists(), f"{page.name} links to {target}"


def defined(path):
    """Return every name that a file defines."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_the_files_and_functions_named_by_the_code_pages_exist(page):
    found = NAMED.findall((ROOT / page).read_text("utf-8"))
    assert len(found) > 10
    for file, name in found:
        path = next((root / file for root in (ROOT, ROOT / "particle_grid") if (root / file).exists()), None)
        assert path, f"{page} names {file}"
        assert set(name.split(".") if name else ()) <= set(defined(path)), f"{page} names {name} in {file}"


def test_generated_tables_are_what_the_code_and_its_data_say(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    generate = importlib.import_module("generate")
    found = list(generate.pages())
    assert {DOCS / "reference.md", *(DOCS / "tasks" / f"{name}.md" for name in tasks.names())} <= set(found)
    for path in found:
        text = path.read_text("utf-8")
        assert generate.renewed(text) == text, f"{path.name} is out of date: python docs/generate.py"


def parameters(task):
    """Return the default and the range of each parameter on the page of a task, as text."""
    text = (DOCS / "tasks" / f"{task}.md").read_text("utf-8")
    return {name: (default, limits) for name, default, limits in PARAMETER.findall(text)}


def test_the_study_as_one_page_needs_no_other_file_and_its_links_lead_somewhere(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    text = (DOCS / "study.md").read_text("utf-8")
    page = importlib.import_module("paper").page(text)
    assert page.count('<img src="data:image/png;base64,') == text.count("\n![") > 0
    assert not re.search(r'(src|href)="(?!data:|#|https?://)', page)
    anchors = set(re.findall(r'id="([^"]+)"', page))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= anchors
    assert len(anchors) == len(re.findall(r"(?m)^##+ ", re.sub(r"(?s)```.*?```", "", text)))


@pytest.mark.parametrize("task", tasks.names())
def test_the_page_of_a_task_lists_its_parameters_with_their_defaults(task):
    listed = {name: default for name, (default, _) in parameters(task).items()}
    assert listed == {field.name: as_written(field.default) for field in fields(tasks.load(task))}


def accepts(task, name, value):
    """Return whether a task can be laid out with a value of a parameter."""
    try:
        tasks.make(task, PARAMS.get(task, {}) | {name: value})[1].init(Layout(World(agents=60, height=60, width=60)))
    except UserError:
        return False
    return True


@pytest.mark.parametrize("task", tasks.names())
def test_parameters_of_a_task_may_have_the_values_on_its_page_and_no_others(task):
    for name, (default, limits) in parameters(task).items():
        whole = "." not in default
        if ends := RANGE.fullmatch(limits):
            kind = int if whole else float
            step = 1 if whole else 0.01
            for end, closed, outwards in ((ends[2], ends[1] == "[", -step), (ends[3], ends[4] == "]", step)):
                value = math.inf if end == "∞" else kind(end)
                assert accepts(task, name, value) == closed, f"{name}={value}"
                assert not accepts(task, name, value + outwards), f"{name}={value + outwards}"
        elif limits == "any number":
            assert accepts(task, name, -1000.0), name
            assert accepts(task, name, 1000.0), name
        else:
            assert limits in ("text", "path"), name


def test_the_api_reference_describes_every_public_name():
    api = (DOCS / "api.md").read_text("utf-8")
    for package, names in (("particle_grid", particle_grid.__all__), ("particle_grid.tasks", for_task_authors)):
        missing = [name for name in names if not re.search(rf"\b{name}\b", api)]
        assert not missing, f"{package}: {missing}"
