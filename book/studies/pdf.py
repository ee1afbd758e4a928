"""The book as one PDF: `python -m studies.pdf` joins the built pages in their order and prints them with Chromium.

Formulas are typeset by the pages' own MathJax, so that nothing but a browser is needed. Pages with a link that waits
for the PDF, `<p class="pdf" hidden>`, show it afterwards.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urldefrag, urljoin, urlsplit

import pikepdf
import yaml
from bs4 import BeautifulSoup, Tag

from studies import look, provenance

NAME = "neumatc.pdf"
# Bytes that the whole site may have.
MOST = 60e6
# What belongs to the screen: buttons, permalinks, controls, the images of dark pages, code that pages hide with what
# unfolds it, BibTeX under each figure, and pictures that are in the book twice.
SCREEN = (
    ".headerlink, .night, .copybtn, script, .interactive script, .prev-next-footer, .above-input, .origin details, "
    ".gallery"
)
# A4 in print: tables and code are smaller, figures are not torn, chapters begin on a page of their own.
STYLE = """
article { break-before: page; max-width: none; }
article:first-of-type { break-before: auto; }
figure, table, pre, .admonition { break-inside: avoid-page; }
h1, h2, h3 { break-after: avoid; }
table { font-size: 8pt !important; display: table !important; max-width: 100% !important; width: auto !important; }
td, th { white-space: normal !important; padding: 1pt 3pt !important; }
td p, th p { margin: 0 !important; max-width: none !important; width: auto !important; }
pre { font-size: 8pt; white-space: pre-wrap !important; }
figure img, .cell_output img { max-height: 13cm; max-width: 11cm; width: auto !important; }
dl, dd { margin-bottom: 3pt !important; }
body { font-size: 10pt; background: #fff; }
.interactive { border: 0; }
"""


def order(site: Path) -> list[str]:
    """Return the names of the pages of the table of contents that were built, in its order, without suffix."""
    toc = yaml.safe_load((provenance.root() / "book" / "_toc.yml").read_text("utf-8"))
    names = re.findall(r"'(?:root|file)': '([^']+)'", str(toc))
    return [name for name in names if (site / f"{name}.html").is_file()]


def joined(pages: dict[str, str]) -> str:
    """Return one page of the articles of several: their links lead within it, and their files stay where they are.

    Args:
        pages: HTML by name without suffix, relative to the site, in order.

    Example:
        >>> pages = {"a": '<article><a href="b.html#x">b</a></article>', "b": '<article><i id="x"></i></article>'}
        >>> html = joined(pages)
        >>> 'href="#b:x"' in html, 'id="b:x"' in html
        (True, True)
    """
    articles = []
    for name, html in pages.items():
        article = BeautifulSoup(html, "html.parser").find("article") or Tag(name="article")
        for screen in article.select(SCREEN):
            screen.decompose()
        for element in article.select("noscript, details"):
            element.name = "div"
        for element in article.select("[id]"):
            element["id"] = f"{name}:{element['id']}"
        for element in article.select("[href]"):
            element["href"] = _link(name, element["href"], pages)
        for element in article.select("[src]"):
            element["src"] = urlsplit(urljoin(f"file:///{name}.html", element["src"])).path.lstrip("/")
        article["id"] = f"{name}:"
        articles.append(str(article))
    return "\n".join(articles)


def _link(name: str, link: str, pages: dict[str, str]) -> str:
    """Return where a link of a page leads in the joined page."""
    if urlsplit(link).scheme:
        return link
    target, anchor = urldefrag(urljoin(f"file:///{name}.html", link))
    page = urlsplit(target).path.lstrip("/").removesuffix(".html")
    return f"#{page}:{anchor}" if page in pages else urlsplit(target).path.lstrip("/")


def _page(pages: dict[str, str]) -> str:
    """Return the joined page with the style sheets of the pages, and MathJax once: two of it never end.

    Example:
        >>> page = "<title>a</title><script src='mathjax.js{}'></script><article></article>"
        >>> _page({"a": page.format(""), "b": page.format("?v=1")}).count("mathjax.js")
        1
    """
    parsed = {name: BeautifulSoup(html, "html.parser") for name, html in pages.items()}
    scripts = {}
    for name, html in parsed.items():
        for script in html.select("script"):
            if "mathjax" in str(script).lower() and (script.get("src") or "window.MathJax" in script.text):
                _rooted(script, name)
                scripts[str(script)] = None
    name, html = next(iter(parsed.items()))
    for sheet in html.select("link[rel=stylesheet]"):
        _rooted(sheet, name)
    head = "".join([*map(str, html.select("link[rel=stylesheet]")), *scripts])
    title = html.title.text
    return (
        f'<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8"><title>{title}</title>{head}'
        f'<style>{STYLE}</style></head><body><main class="bd-article">{joined(pages)}</main></body></html>'
    )


def _rooted(element: Tag, name: str) -> None:
    """Make the address of a file relative to the site, without the version that a build may append or leave out."""
    for key in ("href", "src"):
        if element.get(key) and not urlsplit(element[key]).scheme:
            element[key] = urlsplit(urljoin(f"file:///{name}.html", element[key])).path.lstrip("/")


def make(site: Path, names: Sequence[str] = ()) -> Path:
    """Print the pages of a built book, or those that are named, and return the path of the PDF.

    Raises:
        RuntimeError: If there is no browser, or no page.
    """
    from playwright.sync_api import sync_playwright

    executable, names = look.browser_path(), list(names) or order(site)
    if executable is None or not names:
        raise RuntimeError("the PDF needs Chromium and the built pages; install it, and run `make book` first.")
    pages = {name: (site / f"{name}.html").read_text("utf-8") for name in names}
    source = site / "print.html"
    source.write_text(_page(pages), "utf-8")
    target = site / NAME
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = browser.new_page(color_scheme="light")
        page.set_default_timeout(10 * look.PATIENCE)
        page.goto(source.as_uri())
        page.wait_for_function(look.READY)
        margin = dict.fromkeys(("top", "bottom", "left", "right"), "18mm")
        page.pdf(path=target, format="A4", outline=True, tagged=True, margin=margin)
        browser.close()
    source.unlink()
    # Chromium leaves the structure for readers of the screen as plain text: half of the bytes.
    with pikepdf.open(target, allow_overwriting_input=True) as printed:
        printed.save(target, object_stream_mode=pikepdf.ObjectStreamMode.generate)
    for path in look.pages_of(site):
        html = path.read_text("utf-8")
        if '<p class="pdf" hidden' in html:
            path.write_text(html.replace('<p class="pdf" hidden', '<p class="pdf"'), "utf-8")
    return target


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m studies.pdf", description="Print the built book to a PDF.")
    parser.add_argument("names", nargs="*", help="pages without suffix, such as book/intro; all unless named")
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    try:
        target = make(provenance.root() / "_build" / "html", options.names)
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    size = sum(path.stat().st_size for path in target.parent.rglob("*") if path.is_file())
    seconds = time.perf_counter() - start
    print(f"{NAME}: {target.stat().st_size / 1e6:.1f} MB of the site's {size / 1e6:.1f} MB, {seconds:.0f} s")
    if size > MOST:
        print(f"error: the site has {size / 1e6:.1f} MB; at most {MOST / 1e6:.0f} MB may be served.", file=sys.stderr)
    return int(size > MOST)


if __name__ == "__main__":
    sys.exit(main())
