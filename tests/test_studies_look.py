"""The browser job, on links that are not there and, where a browser is, on a page with planted faults."""

import importlib.util
from pathlib import Path

import pytest

from studies import look

ROOT = Path(__file__).parents[1]
# Every line has one fault, which the job has to name.
FAULTY = """<!doctype html><html lang="en" data-theme="light"><head><title>Faults</title>
<link rel="icon" href="data:,">
<script>
  const theme = matchMedia("(prefers-color-scheme: dark)");
  const set = () => { document.documentElement.dataset.theme = theme.matches ? "dark" : "light"; };
  theme.addEventListener("change", set);
  set();
  console.error("planted");
</script></head><body><main class="bd-article"><h1>Faults</h1>
<img src="https://example.org/x.png" alt="A picture of another host">
<p style="color: #bbb; background: #fff">too pale</p>
<p style="width: 1500px">wider than the page</p>
<p style="width: 90px; overflow: hidden; white-space: nowrap">a long sentence that nobody can read to its end</p>
<p style="width: 90px; overflow: auto; white-space: nowrap">a long sentence that scrolls without anybody knowing</p>
<a href="nowhere.html">broken</a>
<button style="outline: 0">unseen focus</button>
</main></body></html>"""
KINDS = (
    "error in the console",
    "request to another host",
    "axe color-contrast",
    "the page is wider than the window",
    "cut",
    "scrolls without a cue",
    "broken link",
    "focus cannot be seen",
)


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


@pytest.mark.slow
@pytest.mark.skipif(
    look.browser_path() is None or not importlib.util.find_spec("playwright"), reason="needs Chromium and playwright"
)
def test_planted_faults_are_found(tmp_path):
    (tmp_path / "faults.html").write_text(FAULTY, "utf-8")
    lines = look.look(tmp_path).lines()
    assert [kind for kind in KINDS if not any(f": {kind}: " in line for line in lines)] == []


def test_without_a_browser_the_remedy_is_named(tmp_path, monkeypatch):
    pytest.importorskip("playwright")
    (tmp_path / "a.html").touch()
    monkeypatch.setattr(look, "browser_path", lambda: None)
    with pytest.raises(RuntimeError, match="NEUMATC_CHROMIUM"):
        look.look(tmp_path)
