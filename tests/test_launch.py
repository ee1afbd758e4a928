"""Where the book can be run from: addresses, the first cell of the notebooks, launch buttons, wheels."""

import json
import subprocess
import zipfile
from importlib import metadata, util
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from studies import launch, status

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WHEELS = ["neumatc-0.1.0-py3-none-any.whl", "neumatc_studies-0.1.0-py3-none-any.whl"]


def first_cell(path=NOTEBOOKS[0]):
    cells = nbformat.read(path, as_version=4).cells
    (cell,) = [cell for cell in cells if "colab" in cell.metadata.get("tags", ())]
    return cell.source


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A repository of git with one commit, outside of CI."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "neumatc"\n')
    for name in ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "BOOK_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], check=True)
    return tmp_path


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("https://github.com/group/book.git", "https://github.com/group/book"),
        ("https://github.com/group/book", "https://github.com/group/book"),
        ("https://user:password@example.org/group/book.git", "https://example.org/group/book"),
        ("git@github.com:group/book.git", "https://github.com/group/book"),
        ("ssh://git@example.org:2222/group/part/book.git", "https://example.org/group/part/book"),
        ("../book", None),
        ("/srv/book.git", None),
        ("", None),
        (None, None),
    ],
)
def test_only_host_and_name_of_a_remote_become_an_address(remote, address):
    assert launch.web_address(remote) == address


def test_an_address_comes_from_ci_or_git_and_is_not_invented(clone, monkeypatch):
    assert launch.repository() is None
    assert launch.sources(WHEELS) == ()
    subprocess.run(["git", "remote", "add", "origin", "git@example.org:group/book.git"], check=True)
    assert launch.repository() == "https://example.org/group/book"
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    source = f"git+https://example.org/group/book@{commit}"
    assert launch.sources() == (f"neumatc @ {source}", f"neumatc-studies @ {source}#subdirectory=book")
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.com")
    monkeypatch.setenv("GITHUB_REPOSITORY", "other/book")
    assert launch.repository() == "https://github.com/other/book"


def test_the_wheels_beside_the_pages_come_first(clone, monkeypatch):
    monkeypatch.setenv("BOOK_URL", "https://example.org/book/")
    assert launch.sources(WHEELS) == (
        "neumatc @ https://example.org/book/wheels/neumatc-0.1.0-py3-none-any.whl",
        "neumatc-studies @ https://example.org/book/wheels/neumatc_studies-0.1.0-py3-none-any.whl",
    )


def test_there_are_buttons_only_where_they_can_open_something(clone):
    config = {"title": "x", "launch_buttons": {}, "repository": {}}
    assert launch.configured(config) == config
    assert "no buttons" in status.launching()
    subprocess.run(["git", "remote", "add", "origin", "https://example.org/group/book"], check=True)
    assert launch.configured(config) == config  # Colab opens notebooks of GitHub alone
    subprocess.run(["git", "remote", "set-url", "origin", "https://github.com/group/book"], check=True)
    found = launch.configured(config)
    assert found["title"] == "x"
    assert found["repository"] == {"url": "https://github.com/group/book", "path_to_book": "", "branch": "launch"}
    assert {"colab_url", "binderhub_url"} <= set(found["launch_buttons"])
    assert "https://github.com/group/book" in status.launching()


def test_every_notebook_begins_with_the_same_cell():
    assert len({first_cell(path) for path in NOTEBOOKS}) == 1


def test_the_addresses_are_all_that_is_stamped():
    source = first_cell()
    found = ("neumatc @ https://example.org/a.whl", "neumatc-studies @ https://example.org/b.whl")
    before, after = source.splitlines(), launch.stamped(source, found).splitlines()
    place = before.index("SOURCES = ()")
    assert after[:place] == before[:place]
    assert after[place : place + 4] == ["SOURCES = (", *(f'    "{address}",' for address in found), ")"]
    assert after[place + 4 :] == before[place + 1 :]
    assert launch.stamped(source, ()) == source
    with pytest.raises(ValueError, match="the line `SOURCES = \\(\\)`, got 'import torch'"):
        launch.stamped("import torch", found)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty folder, and what the first cell would have pip do there: arguments and the file of what is kept."""
    calls = []

    def run(command, check):
        assert check
        calls.append((command, Path(command[command.index("-c") + 1]).read_text("utf-8")))

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.chdir(tmp_path)
    return SimpleNamespace(folder=tmp_path, calls=calls)


def without(monkeypatch, *names):
    found = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *rest: None if name in names else found(name, *rest))


def test_the_first_cell_does_nothing_where_nothing_is_missing(elsewhere):
    exec(first_cell(), {})
    assert elsewhere.calls == []


@pytest.mark.parametrize("missing", ["neumatc", "studies", "sionna", "h5py", "skfem", "skrf"])
def test_the_first_cell_keeps_torch_and_numpy(elsewhere, monkeypatch, missing):
    without(monkeypatch, missing)
    exec(launch.stamped(first_cell(), ("one", "two")), {})
    ((command, kept),) = elsewhere.calls
    assert command[-2:] == ["one", "two"]
    assert kept == f"torch=={metadata.version('torch')}\nnumpy=={metadata.version('numpy')}\n"


def test_the_first_cell_takes_a_clone_before_any_address(elsewhere, monkeypatch):
    without(monkeypatch, "neumatc")
    (elsewhere.folder / "book").mkdir()
    (elsewhere.folder / "book" / "pyproject.toml").touch()
    (elsewhere.folder / "notebooks").mkdir()
    monkeypatch.chdir(elsewhere.folder / "notebooks")
    exec(launch.stamped(first_cell(), ("one", "two")), {})
    assert elsewhere.calls[0][0][-2:] == ["..", "../book"]


def test_the_first_cell_says_where_it_knows_no_address(elsewhere, monkeypatch):
    without(monkeypatch, "neumatc")
    with pytest.raises(RuntimeError, match="open it in a clone of the repository"):
        exec(first_cell(), {})
    assert elsewhere.calls == []


@pytest.mark.slow
def test_the_wheels_hold_library_and_studies_with_the_records(monkeypatch):
    monkeypatch.chdir(ROOT)
    library, studies = launch.wheels()
    with zipfile.ZipFile(library) as file:
        assert "neumatc/fitting.py" in file.namelist()
        assert not [name for name in file.namelist() if name.startswith(("studies", "tests"))]
    with zipfile.ZipFile(studies) as file:
        names = file.namelist()
        records = {path.name for path in (ROOT / "notebooks" / "records").glob("*")}
        assert {f"studies/records/{name}" for name in records} <= set(names)
        assert json.loads(file.read("studies/records/cases.json"))["chapter"] == "cases"


def test_the_command_line_fails_with_one_line(clone, capsys, monkeypatch):
    monkeypatch.setattr(launch, "wheels", lambda: [])
    assert launch.main(["stamp"]) == 1
    assert capsys.readouterr().err.startswith("error: no address is known")
