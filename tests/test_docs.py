"""The documentation site builds, and its pages name only what exists. tests/test_printed.py runs what they print."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# A file, optionally with a function, class, method or field: `sim/state.py: State`, or `env.py`: `ParticleGrid.step`.
NAMED = re.compile(r"`((?:\w+/)*\w+\.py)(?:(?:: |`: `)([\w.]+))?`")


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_its_links_lead_to_existing_files(tmp_path):
    build = [sys.executable, "-m", "sphinx", "-W", "-q", "--keep-going", str(DOCS), str(tmp_path)]
    process = subprocess.run(build, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    api = (tmp_path / "api.html").read_text("utf-8")
    assert "uint8[N, (2 * vision + 1)**2 + 7]" in api
    for page in tmp_path.glob("*.html"):
        for target in re.findall(r'(?:href|src)="([^"#:]+)[#"]', page.read_text("utf-8")):
            assert (tmp_path / target.partition("?")[0]).exists(), f"{page.name} links to {target}"


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
