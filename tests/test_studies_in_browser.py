"""Surrogates that run in the browser: the model is the surrogate, and the page computes what the library does."""

import base64
import dataclasses
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from bs4 import BeautifulSoup

from studies import in_browser, look

ROOT = Path(__file__).parents[1]
STATIC = ROOT / "book" / "_static"
PAGE = """<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8"><title>Page</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="../_static/style.css"><script defer src="../_static/interactive.js"></script>
<style>:root { --pst-color-background: #fff; --pst-color-border: #777; }</style>
</head><body><main class="bd-article"><h1>Page</h1>
%s
</main></body></html>"""
needs_browser = pytest.mark.skipif(
    look.browser_path() is None or not importlib.util.find_spec("playwright") or in_browser.runtime() is None,
    reason="needs Chromium, playwright and onnxruntime-web, which `make setup` fetches",
)


# Sionna takes the second one some seconds.
@pytest.fixture(scope="module", params=["chain", pytest.param("channel", marks=pytest.mark.slow)])
def runs(request):
    return in_browser.figure(request.param)


@pytest.fixture
def pages(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "book" / "_ext")
    import browser_pages

    return browser_pages


@pytest.fixture
def runtime(monkeypatch):
    spec = importlib.util.spec_from_file_location("browser_runtime", ROOT / ".ci" / "browser_runtime.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def numbers(text, kind):
    """What in_browser.js reads of an array: pairs."""
    return np.frombuffer(base64.b64decode(text), dtype=kind).view(f"<c{2 * np.dtype(kind).itemsize}")


def matrices(family, p):
    """A(p) from the data alone, (B, n, n)."""
    shape = family["shape"]
    if family["kind"] == "gram":
        paths = numbers(family["coefficients"], "<f4").reshape(shape).astype(complex)
        turns = np.exp(-2j * np.pi * np.outer(p, family["delays"]))
        H = np.einsum("bl,lmn->bmn", turns, paths)
        return H.conj().transpose(0, 2, 1) @ H + family["noise"] * np.eye(shape[2])
    terms = numbers(family["coefficients"], "<f8").reshape(shape)
    return np.einsum("bk,kij->bij", np.asarray(p)[:, None] ** np.arange(shape[0]), terms)


def test_the_model_on_the_page_is_the_surrogate(runs):
    p = in_browser.points(runs.problem, 60)
    session = onnxruntime.InferenceSession(base64.b64decode(runs.data["model"]))
    (X,) = session.run(["X"], {"p": p.numpy()})
    assert X.dtype == (np.float32 if runs.surrogate.dtype == torch.complex64 else np.float64)
    expected = runs.surrogate(p).numpy()
    found = X[..., 0] + 1j * X[..., 1].astype(expected.dtype)
    away = np.linalg.norm(found - expected, axis=(1, 2)) / np.linalg.norm(expected, axis=(1, 2))
    assert away.max() < (1e-6 if X.dtype == np.float32 else 1e-12)


def test_the_data_give_the_matrix_of_the_family(runs):
    p = in_browser.points(runs.problem, 20)
    A = runs.problem.family(p).numpy()
    found = matrices(runs.data["family"], p[:, 0].numpy())
    away = np.linalg.norm(found - A, axis=(1, 2)) / np.linalg.norm(A, axis=(1, 2))
    assert away.max() < 100 * np.finfo(A.real.dtype).eps


def test_the_slider_and_the_axes_fit_the_surrogate(runs):
    data, p = runs.data, in_browser.points(runs.problem)
    assert float(p[0]) == data["lower"] and float(p[-1]) == data["upper"] and len(p) == data["steps"] + 1
    assert data["steps"] % data["stride"] == 0
    assert data["pieces"][0] == data["lower"] and len(data["pieces"]) == len(runs.surrogate.pieces)
    largest = float(runs.problem.error(p, runs.surrogate(p)).max())
    assert data["axis"][0] < largest < data["axis"][1]
    apart = (runs.surrogate(p) - runs.problem.exact(p).value).real.double().abs().amax((1, 2))
    assert 0.05 <= float(apart.quantile(0.9)) * data["enlarged"] / data["most"] <= 2
    assert data["rational"] == (runs.name == "chain")
    assert data["rational"] or len(data["pieces"]) > 2


def test_lines_of_bound_and_error_cover_each_other_and_that_of_the_residual_is_above(runs):
    """As the page says, and computes it; below its axis all are cut."""
    p, floor = in_browser.points(runs.problem, 120), runs.data["axis"][0]

    def norm(x):
        return np.linalg.norm(x, axis=(1, 2))

    A, X = matrices(runs.data["family"], p[:, 0].numpy()), runs.surrogate(p).numpy().astype(complex)
    R, exact = np.eye(A.shape[-1]) - A @ X, np.linalg.inv(A)
    rho, error = norm(R), np.maximum(norm(X - exact) / norm(exact), floor)
    b = norm(X @ R) / (1 - rho)
    bound = np.maximum(np.minimum(rho, b / (norm(X) - b)), floor)
    assert rho.max() < 1
    assert (bound / error).max() < 1.2
    assert np.median(rho / error) > 3


def test_the_channel_is_that_of_the_readme_and_the_chain_is_symmetric():
    readme = (ROOT / "README.md").read_text("utf-8")
    assert 'nm.wireless.cdl("C", users=8)' in readme and f"gram(noise={in_browser.NOISE})" in readme
    assert f"tol={in_browser.TOLERANCE:g}".replace("0.001", "1e-3") in readme
    A = in_browser.figure("chain").problem.family(torch.tensor([[0.7]], dtype=torch.float64))
    assert torch.equal(A, A.mT) and not torch.equal(A, A.mH)


def test_the_page_holds_the_data_a_picture_and_words_without_scripts(runs, pages):
    html = BeautifulSoup(pages.element(runs, True), "html.parser").div
    assert json.loads(html.script.string) == runs.data
    assert html["data-surrogate"] == runs.name and "data-state" not in html.attrs
    assert html.select_one(".still svg")["aria-label"]
    assert html.select_one(".still noscript").text.startswith("Nothing runs here without JavaScript")
    assert html.select_one(".note").text == ""


def test_without_the_runtime_the_page_says_so(runs, pages):
    html = BeautifulSoup(pages.element(runs, False), "html.parser").div
    assert html["data-state"] == "missing"
    assert "onnxruntime-web, could not be fetched" in html.select_one(".still .note").text


def test_the_picture_has_the_entries_of_the_middle(runs):
    svg = BeautifulSoup(in_browser.still(runs, cell=6), "html.parser").svg
    X = runs.surrogate(in_browser.points(runs.problem)[in_browser.STEPS // 2 :][:1])[0].real
    strong = (X.abs() / runs.data["most"]).sqrt() > 0.5 / in_browser.SHADES
    for name, there in (("positive", strong & (X > 0)), ("negative", strong & (X < 0))):
        drawn = sum(path["d"].count("M") for path in svg.select(f".{name}"))
        assert abs(drawn - int(there.sum())) <= 1  # one may lie at the edge of a shade


def test_page_script_and_table_of_contents_have_every_surrogate():
    page = (ROOT / "book" / "in_your_browser.md").read_text("utf-8")
    for name in in_browser.SURROGATES:
        assert f"{{in-browser}} {name}\n" in page
    assert "file: book/in_your_browser\n" in (ROOT / "book" / "_toc.yml").read_text("utf-8")
    script = (STATIC / "in_browser.js").read_text("utf-8")
    assert "http" not in script
    assert "gram(" in script and "polynomial(" in script


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="chain"):
        in_browser.figure("spiral")


def test_a_package_of_another_hash_is_refused(runtime, tmp_path):
    archive = tmp_path / "package.tgz"
    archive.write_bytes(b"something else")
    with pytest.raises(ValueError, match="expected"):
        runtime.script(archive)


def test_where_the_package_cannot_be_had_the_set_up_says_so_and_goes_on(runtime, monkeypatch, tmp_path, capsys):
    def fetch(folder):
        raise subprocess.SubprocessError("npm failed: no network")

    monkeypatch.setattr(runtime, "fetch", fetch)
    monkeypatch.setattr(runtime, "place", lambda: tmp_path / "share" / "runtime.js")
    runtime.main()
    assert "no surrogate runs" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_page_finds_what_the_set_up_fetched(runtime, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert in_browser.runtime() is None
    runtime.place().parent.mkdir()
    runtime.place().touch()
    assert in_browser.runtime() == runtime.place()


def planted(name):
    """A surrogate that goes wrong on the page in a known way."""
    runs = dataclasses.replace(in_browser.figure("chain"), name=name)
    if name == "another matrix":
        terms = torch.from_numpy(numbers(runs.data["family"]["coefficients"], "<f8").copy())
        runs.data["family"]["coefficients"] = in_browser.packed(2.5 * terms)
    elif name == "a damaged model":
        runs.data["model"] = base64.b64encode(runs.model[: len(runs.model) // 2]).decode()
    else:
        runs.data.update(lower=0.9, upper=0.9 + 1e-12, pieces=[0.9])
    return runs


FINDINGS = {
    "another matrix": "an error is not below its bound",
    "a damaged model": "a surrogate does not run",
    "one parameter": "a surrogate does not follow its slider",
}


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What the look job says of a page with these surrogates, opened from a file: kinds of findings and texts."""
    from playwright.sync_api import sync_playwright

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "book" / "_ext")
        import browser_pages

    folder, script = tmp_path_factory.mktemp("site"), in_browser.runtime()
    for path in (folder / "_static", folder / browser_pages.FOLDER, folder / "book"):
        path.mkdir()
    for name in ("interactive.js", "in_browser.js", "style.css"):
        shutil.copyfile(STATIC / name, folder / "_static" / name)
    shutil.copyfile(script, folder / browser_pages.FOLDER / script.name)
    shown = [*map(in_browser.figure, in_browser.SURROGATES), *map(planted, FINDINGS)]
    body = "".join(browser_pages.element(runs, True) for runs in shown)
    path, findings = folder / "book" / "page.html", look.Findings()
    path.write_text(PAGE % (body + browser_pages.scripts(script.name, Path(".."))), "utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=look.browser_path(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": look.NARROW, "height": look.HEIGHT})
        page.set_default_timeout(look.PATIENCE)
        look._watch(page, findings, ["page"])
        page.goto(path.as_uri())
        for kind, what in look._surrogates(page):
            findings.add("page", kind, what)
        browser.close()
    return [(kind, what) for (_, kind), items in findings.found.items() for what in items]


@needs_browser
@pytest.mark.slow
def test_from_a_file_the_page_computes_and_follows_its_sliders(seen):
    assert [what for _, what in seen if what.split(":")[0] not in FINDINGS] == []


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize(("name", "finding"), FINDINGS.items())
def test_what_goes_wrong_on_the_page_is_found(seen, name, finding):
    assert {kind for kind, what in seen if what.split(":")[0] == name} == {finding}
