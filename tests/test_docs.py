"""The documentation: its site builds without a warning, and what the tutorial prints runs as printed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cases import needs_jit

DOCS = Path(__file__).parents[1] / "docs"
TUTORIAL = (DOCS / "tutorial.md").read_text("utf-8")


def blocks(language):
    """The code of all fenced blocks of the tutorial in a language, one after the other."""
    return "\n".join(re.findall(rf"^ *```{language}\n(.*?)^ *```", TUTORIAL, re.DOTALL | re.MULTILINE))


@needs_jit("220,000 agent-steps: minutes of plain Python")
def test_the_python_of_the_tutorial_runs_as_printed():
    names: dict = {}
    exec(blocks("python"), names)
    assert names["starts"].shape == (1024,)
    assert names["rewards"].any()


@pytest.mark.slow
def test_the_commands_of_the_tutorial_run_as_printed(tmp_path):
    bin = Path(sys.executable).parent
    script = f"export PATH={bin}:$PATH\n" + blocks("bash")
    process = subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert process.returncode == 0, process.stdout + process.stderr
    assert not process.stderr
    for name in ("first/policy.gif", "first/forage.html", "second/results.json", "sweep/report/groups.csv"):
        assert (tmp_path / "outputs" / name).stat().st_size, name


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_links_to_what_is_there(tmp_path):
    build = [sys.executable, "-m", "sphinx", "-W", "-q", "--keep-going", str(DOCS), str(tmp_path)]
    process = subprocess.run(build, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    api = (tmp_path / "api.html").read_text("utf-8")
    assert "uint8[N, (2 * vision + 1)**2 + 7]" in api
    for page in tmp_path.glob("*.html"):
        for target in re.findall(r'(?:href|src)="([^"#:]+)[#"]', page.read_text("utf-8")):
            assert (tmp_path / target.partition("?")[0]).exists(), f"{page.name} links to {target}"
