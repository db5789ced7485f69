"""The documentation: its site builds without a warning. That what it prints works is held by tests/test_printed.py."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


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
