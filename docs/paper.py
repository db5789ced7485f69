"""Write the study as one self-contained page, with its pictures in it: python docs/paper.py (pip install -e ".[docs]").

The page is docs/study.md. Links to other files of the repository become plain text, because the page may be anywhere.
"""

import html
import re
from pathlib import Path

from markdown_it import MarkdownIt

from particle_grid.evaluation import web_page
from particle_grid.support import atomic

DOCS = Path(__file__).parent
OUT = DOCS.parent / "outputs" / "study.html"
TITLE = re.compile(r"# (.+)\n")
PICTURE = re.compile(r'<p><img src="([^"]+)" alt="([^"]*)" ?/?></p>')
LINK = re.compile(r'<a href="(?!https?://|#)[^"]*">(.*?)</a>', re.DOTALL)
HEADING = re.compile(r"<h([23])>(.*?)</h\1>", re.DOTALL)


def main() -> None:
    """Write the page."""
    OUT.parent.mkdir(exist_ok=True)
    atomic.write(OUT, page((DOCS / "study.md").read_text("utf-8")).encode())
    print(f"Saved: {OUT}")


def page(text: str) -> str:
    """Return a page of Markdown, which begins with its title, as HTML that needs no other file."""
    title = TITLE.match(text)
    assert title, "the page begins with its title"
    body = MarkdownIt("commonmark").enable("table").render(text[title.end() :])
    body = body.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    body = PICTURE.sub(lambda found: picture(found[1], found[2]), body)
    body = LINK.sub(r"\1", body)
    return web_page.page(title[1], HEADING.sub(heading, body))


def picture(source: str, caption: str) -> str:
    """Return a picture of the documentation, with its caption."""
    return web_page.captioned((DOCS / source).read_bytes(), html.unescape(caption))


def heading(found: re.Match[str]) -> str:
    """Return a heading that links within the page can point to, as on GitHub."""
    anchor = re.sub(r"[^\w\- ]", "", re.sub(r"<.*?>", "", found[2]).lower()).replace(" ", "-")
    return f'<h{found[1]} id="{anchor}">{found[2]}</h{found[1]}>'


if __name__ == "__main__":
    main()
