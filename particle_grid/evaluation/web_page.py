"""Self-contained web pages with tables and pictures."""

import base64
import html
from collections.abc import Sequence

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; }
td, th { padding: 3px 12px; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
td:first-child, th:first-child { text-align: left; }
.wide { overflow-x: auto; }
img { max-width: 100%; }
figure { margin: 1.5em 0; }
figcaption { color: #555; }
.answer { font-size: 1.15em; }
pre { background: #f4f4f6; padding: 1em; overflow: auto; }
"""


def page(title: str, body: str) -> str:
    """Return a page.

    Args:
        title: plain text.
        body: HTML.
    """
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en">{head}\n<h1>{html.escape(title)}</h1>\n{body}\n</html>\n'


def image(data: bytes, shows: str) -> str:
    """Return a PNG file, and what it shows for those who cannot see it, as HTML."""
    source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return f'<img src="{source}" alt="{html.escape(shows, quote=True)}">\n'


def captioned(data: bytes, caption: str) -> str:
    """Return a PNG file with a caption below, as HTML."""
    return f"<figure>{image(data, caption)}<figcaption>{html.escape(caption)}</figcaption></figure>\n"


def table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return plain text as an HTML table."""
    lines = [
        "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
        for tag, cells in [("th", header), *(("td", cells) for cells in body)]
    ]
    return '<div class="wide"><table>' + "\n".join(lines) + "</table></div>"
