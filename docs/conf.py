"""Build the documentation: sphinx-build -W docs outputs/site (pip install -e ".[docs]"; no network is needed)."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

project = "particle_grid"
author = copyright = "the particle_grid authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]  # napoleon: Args, Returns, Raises
default_role = "code"  # of single backticks in docstrings
html_theme = "furo"
html_title = "particle_grid"
html_extra_path = ["gallery.html"]
html_static_path = ["_static"]
html_css_files = ["site.css"]
myst_heading_anchors = 3
myst_url_schemes = ["http", "https", "mailto"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_use_ivar = True
napoleon_use_rtype = False
