"""Build the documentation: sphinx-build -W docs outputs/site (pip install -e ".[docs]"; no network is needed)."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from sphinx.application import Sphinx  # noqa: E402 - the package is on the path only now

from particle_grid.browser import page  # noqa: E402
from particle_grid.runs.load import shipped_tasks  # noqa: E402

project = "particle_grid"
author = copyright = "the particle_grid authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]  # napoleon: Args, Returns, Raises
default_role = "code"  # of single backticks in docstrings
html_theme = "furo"
html_title = "particle_grid"
html_static_path = ["_static"]
html_css_files = ["site.css"]
myst_heading_anchors = 3
myst_url_schemes = ["http", "https", "mailto"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_use_ivar = True
napoleon_use_rtype = False


def write_page(app: Sphinx, error: Exception | None) -> None:
    """Write the page that plays the tasks. It holds every policy, and is too large to be stored with the sources."""
    if error is None and app.builder.format == "html":
        page.write(Path(app.outdir) / "play.html", shipped_tasks(), [])


def setup(app: Sphinx) -> None:
    """Register what this site needs beyond its pages."""
    app.connect("build-finished", write_page)
