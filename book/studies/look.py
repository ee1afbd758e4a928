"""The browser's view of the built book: every page in headless Chromium, wide and narrow, light and dark.

    python -m studies.look [SITE]      SITE: folder of the built pages, _build/html unless said otherwise

Reads from files and needs no network. Of every page it checks: no error in the console, no request to another host, no
broken link or anchor, nothing wider than the page, nothing cut, a cue and the keyboard for what scrolls, figures whose
text is large enough on a telephone, every control within reach of the keyboard, and the rules of axe-core. Surrogates
that run on a page are moved: what they show must change, and no error be above its bound. What depends on the width is
checked at each width, all else once, but for colours: of all texts at each width and in each theme, axe-core judges
each pair of text and ground once, on the first page that has it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from studies import figures, provenance

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Names under which systems install Chromium; NEUMATC_CHROMIUM names another.
BROWSERS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
# Pixels: a laptop, and the narrowest telephone that is still sold.
WIDE, NARROW, HEIGHT = 1280, 360, 900
# Browsers at a time: each keeps one core busy.
AT_ONCE = 2
# Presses of Tab per page: past the frame of the page and well into the article. All controls are focused directly.
TABS = 40
# Milliseconds for a page with its formulas, on a machine that computes something else too.
PATIENCE = 600_000
# Findings of one kind that are printed for a page; the rest is counted.
SHOWN = 4
# WCAG 2.2 at level AA is what we promise; the best practices beyond it concern the theme's frame.
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa")
# Of these, what depends on the theme, and what on the width.
COLOURS = ("color-contrast", "link-in-text-block")
SIZES = ("target-size", "scrollable-region-focusable")

# What a page has that only leads to another: it is not opened, its link is checked.
FORWARD = re.compile(r'<meta http-equiv="refresh" content="[^"]*url=([^"]+)"')

READY = """() => !window.MathJax || (MathJax.startup && MathJax.startup.promise
    ? MathJax.startup.promise.then(() => true) : true)"""

# Pictures that the page loads when they come into view, at once; those of the other theme, too.
PICTURES = """() => {
  document.querySelectorAll('img[loading=lazy]').forEach(e => { e.loading = 'eager'; });
  return Promise.all([...document.images].filter(e => !e.complete).map(e => new Promise(done => {
    e.onload = e.onerror = done;
  }))).then(() => true);
}"""

# Surrogates that run on a page have done all that they do by themselves, and what the slider asked for.
RUNS = "e => e.dataset.curve || ['missing', 'failed'].includes(e.dataset.state)"
MOVED = "e => e.dataset.place === e.querySelector('input').value || e.dataset.state === 'failed'"
# To the ends of the slider and between them.
MOVES = ("Home", "ArrowRight", "PageUp", "End", "ArrowLeft")
SCIENTIFIC = re.compile(r"\d\.\d+e[-−]?\d+")

# A frame for the new layout, one for what scrolling.js does then, one for what follows.
SETTLED = (
    """() => [1, 2, 3].reduce(before => before.then(() => new Promise(requestAnimationFrame)), Promise.resolve())"""
)

LAYOUT = """([smallest, dpi]) => {
  const found = [], width = document.documentElement.clientWidth;
  const name = e => e.tagName.toLowerCase() + (e.id ? '#' + e.id : '') + [...e.classList].map(c => '.' + c).join('')
    + ' "' + (e.textContent || e.alt || '').trim().replace(/\\s+/g, ' ').slice(0, 50) + '"';
  const say = (kind, e) => found.push([kind, name(e)]);
  if (document.scrollingElement.scrollWidth > width + 1) {
    const widest = [...document.body.querySelectorAll('*')].reduce((a, b) =>
      b.getBoundingClientRect().right > a.getBoundingClientRect().right ? b : a);
    found.push(['the page is wider than the window',
      `${document.scrollingElement.scrollWidth} > ${width} px: ${name(widest)}`]);
  }
  const article = document.querySelector('.bd-article') || document.querySelector('main') || document.body;
  const scrolls = new Map();
  const scroller = e => {
    if (!scrolls.has(e)) scrolls.set(e, /auto|scroll/.test(getComputedStyle(e).overflowX));
    return scrolls.get(e);
  };
  // What formulas and drawings consist of is theirs.
  const elements = document.createTreeWalker(article, NodeFilter.SHOW_ELEMENT, e =>
    e.matches('mjx-container > *, svg, .visually-hidden, .sr-only') ? NodeFilter.FILTER_REJECT
      : NodeFilter.FILTER_ACCEPT);
  while (elements.nextNode()) {
    const e = elements.currentNode, box = e.getBoundingClientRect();
    if (!box.width || !box.height || getComputedStyle(e).visibility === 'hidden') continue;
    if (e.scrollWidth > e.clientWidth + 2 && e.clientWidth) {
      const style = getComputedStyle(e);
      if (/hidden|clip/.test(style.overflowX)) say('cut', e);
      if (/auto|scroll/.test(style.overflowX)) {
        if (style.maskImage === 'none' && !e.matches('span.math')) say('scrolls without a cue', e);
        if (e.tabIndex < 0) say('scrolls, but not by keyboard', e);
      }
    }
    if (box.right > width + 1 || box.left < -1) {
      let parent = e.parentElement;
      while (parent && parent !== document.body && !scroller(parent)) parent = parent.parentElement;
      if (!parent || parent === document.body) say('beyond the edge', e);
    }
  }
  for (const e of article.querySelectorAll('td, th, p, li, figcaption, h1, h2, h3')) {
    if (!e.getClientRects().length || e.closest('mjx-container')) continue;
    // Formulas by their own box: what they hold for screen readers is wider, and unseen.
    const range = document.createRange(), formulas = [...e.querySelectorAll('mjx-container')];
    const walker = document.createTreeWalker(e, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT, node =>
      node.nodeName === 'MJX-CONTAINER' ? NodeFilter.FILTER_REJECT
        : node.nodeType === 3 && node.data.trim() ? NodeFilter.FILTER_ACCEPT : NodeFilter.FILTER_SKIP);
    const rights = formulas.map(f => f.getBoundingClientRect().right);
    while (walker.nextNode()) {
      range.selectNodeContents(walker.currentNode);
      rights.push(range.getBoundingClientRect().right);
    }
    const box = e.getBoundingClientRect(), spare = e.closest('td, th') ? 2 : width;
    if (Math.max(...rights) > box.right + spare
      && ![...e.querySelectorAll('*'), e].some(scroller)) say('prints over', e);
  }
  for (const e of article.querySelectorAll('img')) {
    if (!e.getClientRects().length) continue;
    if (!e.naturalWidth) { say('image does not load', e); continue; }
    // Points of a drawing are 4/3 px wide.
    const style = getComputedStyle(e), points = e.naturalWidth * (e.src.endsWith('.png') ? 72 / dpi : 0.75);
    const pixels = (e.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight)) / points;
    if (pixels * smallest < 8) found.push(['text of a figure is below 8 px', `${e.src.split('/').pop().slice(0, 12)} "${
      e.alt.slice(0, 40)}": ${(pixels * smallest).toFixed(1)} px`]);
    if (e.alt.trim().length < 10 || e.alt.includes('_images/')) say('alternative text says nothing', e);
  }
  for (const e of article.querySelectorAll('svg text')) {
    const box = e.getBoundingClientRect(), frame = e.ownerSVGElement.getBoundingClientRect();
    if (!box.width) continue;
    if (box.left < frame.left - 1 || box.right > frame.right + 1) say('cut', e);
    const grown = Math.hypot(e.getScreenCTM().a, e.getScreenCTM().b);
    if (grown * parseFloat(getComputedStyle(e).fontSize) < 8) say('text of a figure is below 8 px', e);
  }
  return found;
}"""

FACTS = """() => ({
  ids: [...document.querySelectorAll('[id]')].map(e => e.id).concat(
    [...document.querySelectorAll('a[name]')].map(e => e.name)),
  links: [...document.querySelectorAll('a[href], area[href]')].filter(e => !e.closest('[hidden]'))
    .map(e => e.getAttribute('href')),
})"""

FOCUS = """() => {
  const e = document.activeElement;
  if (!e || e === document.body) return null;
  const box = e.getBoundingClientRect(), style = getComputedStyle(e);
  const again = e === window.lastStop;
  window.lastStop = e;
  const shown = style.outlineStyle !== 'none' || style.boxShadow !== 'none';
  return {again, seen: shown && box.width * box.height > 0, name: e.tagName.toLowerCase() + (e.id ? '#' + e.id : '')
    + [...e.classList].map(c => '.' + c).join('')
    + ' "' + (e.textContent || e.ariaLabel || '').trim().slice(0, 40) + '"'};
}"""

# Formulas have passed; a box of their size in their place spares axe-core half of the elements of a page.
BOXED = """() => {
  for (const e of document.querySelectorAll('mjx-container')) {
    const box = (e.querySelector('mjx-math') || e).getBoundingClientRect(), place = document.createElement('span');
    place.style.cssText = `display: inline-block; width: ${box.width}px; height: ${box.height}px`;
    e.replaceChildren(place);
  }
}"""

# Marks one text of each look that is not known yet, and returns these looks: colour, size, and the grounds below it.
LOOKS = """known => {
  const grounds = new Map(), looks = new Map(), texts = [];
  const ground = e => {
    if (!e) return '';
    if (!grounds.has(e)) {
      const style = getComputedStyle(e), clear = style.backgroundColor === 'rgba(0, 0, 0, 0)';
      const place = /static|relative/.test(style.position) ? '' : e.tagName + e.className;
      const own = [style.backgroundColor, style.backgroundImage, style.opacity, style.filter, place].join();
      const plain = style.backgroundImage === 'none' && style.opacity === '1' && style.filter === 'none' && !place;
      const covers = plain && style.backgroundColor.startsWith('rgb(');
      grounds.set(e, (clear && plain ? '' : own) + (covers ? '' : ground(e.parentElement)));
    }
    return grounds.get(e);
  };
  document.querySelectorAll('[data-look]').forEach(e => e.removeAttribute('data-look'));
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) if (walker.currentNode.data.trim()) texts.push(walker.currentNode.parentElement);
  for (const e of [...texts, ...document.querySelectorAll('input, textarea')]) {
    if (!e.checkVisibility({visibilityProperty: true})) continue;
    const style = getComputedStyle(e), link = e.closest('a');
    const look = [style.color, style.fontSize, style.fontWeight, link && style.textDecorationLine, ground(e)].join();
    if (!looks.has(look)) looks.set(look, link || e);
  }
  known.forEach(look => looks.delete(look));
  looks.forEach(e => { e.dataset.look = ''; });
  return [...looks.keys()];
}"""

UNREACHED = """() => [...document.querySelectorAll(
  '.bd-article :is(a[href], button, input, select, summary, .scrolls)')]
  .filter(e => e.checkVisibility({visibilityProperty: true}))
  .filter(e => { e.focus(); return document.activeElement !== e || e.tabIndex < 0; })
  .map(e => e.tagName.toLowerCase() + ' "' + (e.textContent || e.value || '').trim().slice(0, 40) + '"')"""


class Findings:
    """What is wrong, by page and kind."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], list[str]] = defaultdict(list)

    def add(self, page: str, kind: str, what: str) -> None:
        """Note one finding, once."""
        if what not in self.found[page, kind]:
            self.found[page, kind].append(what)

    def lines(self, only: str = "") -> list[str]:
        """Return a line for each finding that is shown, and one for those that are not; of all pages, or of one."""
        result = []
        for (page, kind), items in sorted(self.found.items()):
            if only and page != only:
                continue
            result += [f"{page}: {kind}: {item}" for item in items[:SHOWN]]
            if len(items) > SHOWN:
                result.append(f"{page}: {kind}: and {len(items) - SHOWN} more")
        return result


def browser_path() -> str | None:
    """Return the path of an installed Chromium, or None; the variable NEUMATC_CHROMIUM goes first."""
    names = (os.environ.get("NEUMATC_CHROMIUM"), *BROWSERS)
    return next((path for name in names if name and (path := shutil.which(name))), None)


def pages_of(site: Path) -> list[Path]:
    """Return all pages of a built book, sorted; what lies in ``_static`` belongs to the theme."""
    return [path for path in sorted(site.rglob("*.html")) if "_static" not in path.relative_to(site).parts]


def broken_links(pages: dict[str, dict], exists: Iterable[str]) -> list[tuple[str, str]]:
    """Return pairs of page and link whose file or anchor is not there.

    Args:
        pages: By name relative to the site, what ``ids`` a page has and which ``links`` (its ``href`` values).
        exists: Names of all files of the site.

    Links to other hosts are left out: no network is needed.

    Example:
        >>> broken_links({"a/b.html": {"ids": ["x"], "links": ["#x", "#y", "c.png", "https://example.org"]}}, [])
        [('a/b.html', '#y'), ('a/b.html', 'c.png')]
    """
    files, result = {*exists, *pages}, []
    for name, facts in pages.items():
        for link in facts["links"]:
            if urlsplit(link).scheme:
                continue
            target, anchor = urldefrag(urljoin(f"site:/{name}".replace("site:/", "file:///"), link))
            path = unquote(urlsplit(target).path).lstrip("/")
            known = pages[path]["ids"] if path in pages else None
            if path not in files or (anchor and known is not None and unquote(anchor) not in known):
                result.append((name, link))
    return result


def _watch(page: Page, findings: Findings, current: list[str]) -> None:
    """Note errors of the console and requests to other hosts, and let none of these out."""

    def request(route: object) -> None:
        if urlsplit(route.request.url).scheme in ("file", "data", "blob"):
            route.continue_()
            return
        findings.add(current[0], "request to another host", route.request.url)
        route.abort()

    page.route("**/*", request)
    page.on("console", lambda m: m.type == "error" and findings.add(current[0], "error in the console", m.text))
    page.on("pageerror", lambda error: findings.add(current[0], "error in the console", str(error)))
    page.on("requestfailed", lambda r: findings.add(current[0], "request failed", r.url.rsplit("/", 1)[-1]))


def _axe(page: Page, rules: Sequence[str] = (), where: str = "body") -> list[tuple[str, str]]:
    """Run some of axe-core's rules, or all that we promise but for those of colours."""
    options = {
        "runOnly": {"type": "rule", "values": list(rules)} if rules else {"type": "tag", "values": list(RULES)},
        "rules": {rule: {"enabled": rule in rules} for rule in COLOURS},
        "resultTypes": ["violations"],
        "iframes": False,
        "preload": False,  # of style sheets, which a page from a file may not read
    }
    # A formula's colour is that of the text around it, and what MathJax adds for screen readers lies over it unseen.
    context = {"include": [[where]], "exclude": [["mjx-container"]]}
    result = page.evaluate("([context, options]) => axe.run(context, options)", [context, options])
    return [
        (f"axe {violation['id']}", f"{node['target'][-1]} {node['html'][:90]} {node['failureSummary'][-160:]}")
        for violation in result["violations"]
        for node in violation["nodes"]
    ]


def _keyboard(page: Page) -> list[tuple[str, str]]:
    """Walk into a page by Tab: no stop is a trap or unseen; then every control of the article must take the focus."""
    found = []
    for _ in range(TABS):
        page.keyboard.press("Tab")
        stop = page.evaluate(FOCUS)
        if stop is None:
            break
        if stop["again"]:
            found.append(("keyboard trap", stop["name"]))
            break
        if not stop["seen"]:
            found.append(("focus cannot be seen", stop["name"]))
    return found + [("out of reach of the keyboard", name) for name in page.evaluate(UNREACHED)]


def _colours(page: Page, known: set[str]) -> list[tuple[str, str]]:
    """Run axe-core's rules of colours on texts whose look in this theme no page had before."""
    fresh = page.evaluate(LOOKS, list(known))
    known |= set(fresh)
    return _axe(page, COLOURS, "[data-look]") if fresh else []


def _surrogates(page: Page) -> Iterator[tuple[str, str]]:
    """Move the surrogates that run on a page, by keyboard, and yield what is wrong with what they show."""
    for root in page.locator("[data-surrogate]").all():
        name = root.get_attribute("data-surrogate")
        page.wait_for_function(RUNS, arg=root.element_handle())
        if root.get_attribute("data-state") == "missing":
            print(f"{name}: not run, onnxruntime-web is not there", flush=True)
            continue
        if root.get_attribute("data-state") == "failed":
            yield "a surrogate does not run", f"{name}: {root.locator('.note').inner_text()}"
            continue
        shown = set()
        for key in MOVES:
            root.locator("input").press(key)
            page.wait_for_function(MOVED, arg=root.element_handle())
            text = root.locator(".said").inner_text()
            shown.add((text, root.locator("canvas").first.evaluate("e => e.toDataURL()")))
            numbers = [float(number.replace("−", "-")) for number in SCIENTIFIC.findall(text)]
            # The error, and what the page knows of it: less than all.
            if len(numbers) != 2 or not numbers[0] <= numbers[1] < 1:
                yield "an error is not below its bound", f"{name}: {text}"
        if any(len(set(kind)) < len(MOVES) for kind in zip(*shown)):
            yield "a surrogate does not follow its slider", name


def _show(page: Page, width: int, theme: str) -> str:
    """Change width and theme, wait for the page to follow, and return the two in words."""
    page.set_viewport_size({"width": width, "height": HEIGHT})
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    page.wait_for_function(f"document.documentElement.dataset.theme === '{theme}'")
    page.evaluate(SETTLED)
    return f"{width} px, {theme}"


def _inspect(page: Page, known: Mapping[str, set[str]]) -> Iterator[tuple[str, str]]:
    """Check one loaded page at both widths and in both themes, and yield what is wrong, by kind."""
    page.evaluate(PICTURES)
    for width in (WIDE, NARROW):
        view = _show(page, width, "light")
        yield from ((f"{view}: {kind}", what) for kind, what in page.evaluate(LAYOUT, [figures.SMALLEST, figures.DPI]))
    yield from _keyboard(page)
    page.evaluate(BOXED)
    yield from ((f"{view}: {kind}", what) for kind, what in _axe(page, SIZES))
    for width, theme in ((NARROW, "light"), (NARROW, "dark"), (WIDE, "dark"), (WIDE, "light")):
        view = _show(page, width, theme)
        yield from ((f"{view}: {kind}", what) for kind, what in _colours(page, known[theme]))
    yield from ((f"{view}: {kind}", what) for kind, what in _axe(page))


def _walk(
    executable: str, site: Path, waiting: deque[Path], findings: Findings, known: Mapping[str, set[str]]
) -> dict[str, dict]:
    """Take pages that wait, until none is left, into a browser of its own; return their anchors and links by name."""
    from axe_playwright_python.base import AXE_FILE_PATH
    from playwright.sync_api import sync_playwright

    axe, facts, current = Path(AXE_FILE_PATH).read_text("utf-8"), {}, [""]
    with sync_playwright() as playwright:
        # No sandbox: continuous integration runs as root, and the pages are our own.
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        _watch(page, findings, current)
        while waiting:
            try:
                path = waiting.pop()
            except IndexError:  # another browser was faster
                break
            current[0] = name = path.relative_to(site).as_posix()
            start = time.perf_counter()
            page.set_viewport_size({"width": WIDE, "height": HEIGHT})
            page.emulate_media(color_scheme="light", reduced_motion="reduce")
            page.goto(path.as_uri())
            page.wait_for_function(READY)
            facts[name] = page.evaluate(FACTS)
            page.evaluate(axe)
            for kind, what in chain(_surrogates(page), _inspect(page, known)):
                findings.add(name, kind, what)
            print(f"{name}: {time.perf_counter() - start:.1f} s", *findings.lines(name), sep="\n  ", flush=True)
        browser.close()
    return facts


def look(site: Path, only: Sequence[str] = ()) -> Findings:
    """Open the pages of a site, two at a time, and return what is wrong with them.

    Args:
        site: Folder of the built pages.
        only: Parts of names of pages; empty for all, which also checks the links.

    Raises:
        RuntimeError: If there is no browser, or no page.
    """
    executable, paths = browser_path(), pages_of(site)
    if executable is None:
        raise RuntimeError(f"no Chromium found; install one of {', '.join(BROWSERS)}, or name it in NEUMATC_CHROMIUM.")
    if not paths:
        raise RuntimeError("no built pages found; run `make book` first.")
    chosen = [path for path in paths if not only or any(part in path.relative_to(site).as_posix() for part in only)]
    leads = {path: FORWARD.findall(path.read_text("utf-8")) for path in chosen}
    # The largest comes first, so that no browser has it alone in the end.
    waiting, findings = (
        deque(sorted((path for path in chosen if not leads[path]), key=lambda path: path.stat().st_size)),
        Findings(),
    )
    with ThreadPoolExecutor(AT_ONCE) as pool:
        shared = executable, site, waiting, findings, {"light": set(), "dark": set()}
        walks = [pool.submit(_walk, *shared) for _ in range(min(AT_ONCE, len(chosen)))]
        facts = {name: found for walk in walks for name, found in walk.result().items()}
    facts |= {path.relative_to(site).as_posix(): {"ids": [], "links": links} for path, links in leads.items() if links}
    if not only:
        files = [path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()]
        for name, link in broken_links(facts, files):
            findings.add(name, "broken link", link)
    return findings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m studies.look", description="Look at the built book in a browser.")
    parser.add_argument("site", nargs="?", type=Path, default=provenance.root() / "_build" / "html")
    parser.add_argument("--only", nargs="*", default=(), help="parts of the names of the pages to look at")
    options = parser.parse_args(arguments)
    try:
        lines = look(options.site.resolve(), options.only).lines()
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(*lines, sep="\n")
    print(f"{len(lines)} findings" if lines else "nothing found")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
