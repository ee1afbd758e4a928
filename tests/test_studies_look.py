"""The browser job, on links that are not there and, where a browser is, on pages with a planted fault each."""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from studies import look

ROOT = Path(__file__).parents[1]
PAGE = """<!doctype html><html lang="en" data-theme="light"><head><title>Page</title>
<link rel="icon" href="data:,">
<style>
  :root {{ --pst-color-link: #0b57c4; }}
  html[data-theme="dark"] {{ background: #121212; color: #eee; }}
  {style}
</style>
<script>
  const theme = matchMedia("(prefers-color-scheme: dark)");
  const set = () => {{ document.documentElement.dataset.theme = theme.matches ? "dark" : "light"; }};
  theme.addEventListener("change", set);
  set();
</script>{head}</head><body><main class="bd-article"><h1>Page</h1>
{body}
</main></body></html>"""
LONG = "a sentence that is longer than a telephone is wide, and that does not break anywhere. " * 2
DOT = "<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><circle r='4' cx='4' cy='4'/></svg>"
# By name: what a page has in style, head and body, and the finding that it has to make; None for none.
PLANTED = {
    "console": ("", "<script>console.error('planted')</script>", "", "error in the console"),
    "host": (
        "",
        "",
        '<img src="https://example.org/x.png" alt="A picture of another host">',
        "request to another host",
    ),
    "pale": ("", "", '<p style="color: #bbb; background: #fff">too pale</p>', "light: axe color-contrast"),
    "dim": ('html[data-theme="dark"] p { color: #333; }', "", "<p>dim</p>", "dark: axe color-contrast"),
    "pale-narrow": (
        "@media (max-width: 400px) { p { color: #bcbcbc; background: #fff; } }",
        "",
        "<p>pale</p>",
        "360 px, light: axe color-contrast",
    ),
    "wide": ("", "", '<p style="width: 1500px">wide</p>', "1280 px, light: the page is wider than the window"),
    "wide-narrow": ("p { width: 500px; }", "", "<p>wide</p>", "360 px, light: the page is wider than the window"),
    "cut": ("", "", f'<p style="width: 90px; overflow: hidden; white-space: nowrap">{LONG}</p>', "cut"),
    "cue": ("", "", f'<p style="width: 90px; overflow: auto; white-space: nowrap">{LONG}</p>', "scrolls without a cue"),
    "keyboard": ("", "", f"<pre style='overflow: auto'>{LONG}</pre>", "scrolls, but not by keyboard"),
    "link": ("", "", '<a href="nowhere.html">broken</a>', "broken link"),
    "forward": ("", '<meta http-equiv="refresh" content="0; url=nowhere.html">', "", "broken link: nowhere.html"),
    "focus": ("", "", '<button style="outline: 0">unseen focus</button>', "focus cannot be seen"),
    "image": ("", "", '<img src="nowhere.svg" alt="A picture that is not there">', "image does not load"),
    "drawing": (
        "",
        "",
        '<svg viewBox="0 0 400 40" width="200" role="img" aria-label="a"><text y="20" font-size="9">a</text></svg>',
        "text of a figure is below 8 px",
    ),
    "target": (
        "",
        "",
        "<p>" + "".join(f'<button style="font-size: 5px; padding: 0; margin: 0">{c}</button>' for c in "abc") + "</p>",
        "axe target-size",
    ),
    # Far below, where a browser would not load it yet.
    "lazy": ("", "", '<p style="height: 9000px">far</p><img src="dot.svg" alt="A round dot" loading="lazy">', None),
    "scrolls": (
        "",
        '<link rel="stylesheet" href="style.css"><script src="scrolling.js"></script>',
        f"<pre style='overflow: auto'>{LONG}</pre><table><tr><td style='white-space: nowrap'>{LONG}</td></tr></table>",
        None,
    ),
}
needs_browser = pytest.mark.skipif(
    look.browser_path() is None or not importlib.util.find_spec("playwright"), reason="needs Chromium and playwright"
)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What the job says of a site with these pages."""
    site = tmp_path_factory.mktemp("site")
    for name, (style, head, body, _) in PLANTED.items():
        (site / f"{name}.html").write_text(PAGE.format(style=style, head=head, body=body), "utf-8")
    (site / "dot.svg").write_text(DOT, "utf-8")
    for name in ("style.css", "scrolling.js"):
        (site / name).write_text((ROOT / "book" / "_static" / name).read_text("utf-8"), "utf-8")
    return look.look(site).lines()


def test_a_link_needs_its_file_and_its_anchor():
    pages = {
        "a/b.html": {"ids": ["here"], "links": ["#here", "#gone", "../c.html#there", "../c.html#gone", "d.html"]},
        "c.html": {"ids": ["there"], "links": ["a/b.html", "mailto:a@b", "style.css", "gone.css"]},
    }
    assert look.broken_links(pages, ["style.css"]) == [
        ("a/b.html", "#gone"),
        ("a/b.html", "../c.html#gone"),
        ("a/b.html", "d.html"),
        ("c.html", "gone.css"),
    ]


def test_findings_are_told_once_and_counted():
    findings = look.Findings()
    for what in "aabcdef":
        findings.add("page", "kind", what)
    lines = findings.lines()
    assert lines[:2] == ["page: kind: a", "page: kind: b"]
    assert lines[-1] == "page: kind: and 2 more"


def test_pages_are_those_of_the_book(tmp_path):
    for name in ("index.html", "book/intro.html", "_static/webpack-macros.html"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert [path.name for path in look.pages_of(tmp_path)] == ["intro.html", "index.html"]


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, planted in PLANTED.items() if planted[3]])
def test_a_planted_fault_is_found(seen, name):
    assert [line for line in seen if line.startswith(f"{name}.html: ") and PLANTED[name][3] in line]


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, planted in PLANTED.items() if not planted[3]])
def test_a_page_without_faults_passes(seen, name):
    assert [line for line in seen if line.startswith(f"{name}.html: ")] == []


@needs_browser
@pytest.mark.slow
def test_a_fault_is_told_where_it_is(seen):
    """Too dark in the dark, and pale on a telephone only."""
    where = {line.split(": ")[1] for line in seen if line.startswith("dim.html: ")}
    assert where == {"360 px, dark"}
    where = {line.split(": ")[1] for line in seen if line.startswith("pale-narrow.html: ")}
    assert where == {"360 px, dark", "360 px, light"}


def test_without_a_browser_the_remedy_is_named(tmp_path, monkeypatch):
    pytest.importorskip("playwright")
    (tmp_path / "a.html").touch()
    monkeypatch.setattr(look, "browser_path", lambda: None)
    with pytest.raises(RuntimeError, match="NEUMATC_CHROMIUM"):
        look.look(tmp_path)


def test_where_no_browser_can_be_installed_the_job_says_so_and_passes(tmp_path):
    for name in ("bash", "dirname", "id"):
        (tmp_path / name).symlink_to(shutil.which(name))
    command, path = [tmp_path / "bash", ROOT / ".ci" / "look"], {"PATH": str(tmp_path)}
    done = subprocess.run(command, env=path, capture_output=True, text=True, check=True)
    assert done.stderr.startswith("skipped: no Chromium")
