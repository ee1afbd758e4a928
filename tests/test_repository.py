"""The repository as a whole: versions that agree, imports in one direction, notebooks that have run, the set-up."""

import ast
import functools
import importlib.metadata
import importlib.util
import io
import json
import os
import pkgutil
import re
import subprocess
import sys
import tokenize
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from studies import digests, runs

ROOT = Path(__file__).parents[1]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = CONFIG["project"]
EXTRAS = PROJECT["optional-dependencies"]
STUDIES = tomllib.loads((ROOT / "book" / "pyproject.toml").read_text("utf-8"))["project"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Low to high: a place, which is a module or a subpackage, imports those before it only.
ORDER = (
    "checks threads files nodes plotting box report linalg lowrank sampling failure measured segments shrinkage "
    "smoothing families batches embeddings local polynomials rational gauge twofold operations receivers "
    "factorizations spectral turns model "
    "problem watch methods advice samples continuation closed_form checkpoint training piece snapshots together "
    "inspection poles outlook budget ending sparse links steps refinement noise pieces fitting certification storage "
    "export testing peers wireless sionna distributed"
)
ONLY = {
    "peers": {
        "box",
        "checks",
        "spectral",
        "linalg",
        "operations",
        "problem",
        "rational",
        "sampling",
        "threads",
    },
    "wireless": {"batches", "checks", "families", "linalg"},
    "sionna": {
        "advice",
        "checks",
        "families",
        "fitting",
        "linalg",
        "model",
        "operations",
        "pieces",
        "problem",
        "receivers",
        "spectral",
        "threads",
        "wireless",
    },
}
SOURCES = sorted((ROOT / "neumatc").rglob("*.py"))
# The door, and what pytest reads: no place of its own.
UNPLACED = {ROOT / "neumatc" / "__init__.py", ROOT / "neumatc" / "conftest.py"}
PLACES = {path.relative_to(ROOT / "neumatc").with_suffix("").parts[0] for path in SOURCES if path not in UNPLACED}

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@functools.cache
def notebook(path):
    """A saved notebook, read once; no test changes it."""
    return nbformat.read(path, as_version=4)


def code_cells(path):
    return [cell for cell in notebook(path).cells if cell.cell_type == "code"]


def tagged(path, tag):
    return [cell for cell in code_cells(path) if tag in runs.tags(cell)]


def pins():
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def tracked():
    """Paths of the files that are, or would be, committed."""
    command = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "-z"]
    names = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def environment():
    return yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))["dependencies"]


def test_no_file_is_a_link():
    """One leads out of the clone, or to a folder that set-up makes."""
    assert [path for path in tracked() if path.is_symlink()] == []
    command = ["git", "-C", str(ROOT), "ls-files", "-s"]
    listed = subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()
    assert [line for line in listed if line.startswith("120000")] == []


# Versions


def test_every_pin_is_exact_public_and_the_only_one():
    names = [canonicalize_name(pin.name) for pin in pins()]
    assert sorted(names) == sorted(set(names))
    for pin in pins():
        (specifier,) = pin.specifier
        assert specifier.operator == "==", pin
        assert Version(specifier.version).local is None, pin


@pytest.mark.parametrize("group", ["library", "studies", *EXTRAS])
def test_the_pins_satisfy_the_ranges(group):
    pinned = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pins()}
    studies = [line for line in STUDIES["dependencies"] if line != "neumatc"]
    lines = {"library": PROJECT["dependencies"], "studies": studies, **EXTRAS}[group]
    for requirement in map(Requirement, lines):
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_all_that_the_set_up_installs_is_pinned():
    """Direct and transitive, for this Python and system; what CUDA builds of torch bring, torch pins itself."""
    pinned = {canonicalize_name(pin.name) for pin in pins()}
    waiting = [Requirement(f"neumatc[{','.join(EXTRAS)}]"), *map(Requirement, STUDIES["dependencies"])]
    seen = set()
    while waiting:
        requirement = waiting.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen or key[0].startswith(("nvidia-", "cuda-", "triton")):
            continue
        seen.add(key)
        for line in importlib.metadata.requires(requirement.name) or ():
            needed = Requirement(line)
            wanted = [{"extra": extra} for extra in (*requirement.extras, "")]
            if needed.marker is None or any(needed.marker.evaluate(extra) for extra in wanted):
                waiting.append(needed)
    assert {name for name, _ in seen} - pinned == {"neumatc"}


def test_conda_users_get_the_same_packages():
    (pip,) = [entry["pip"] for entry in environment() if isinstance(entry, dict)]
    assert pip == ["-c constraints.txt", f"-e .[{','.join(EXTRAS)}]", "-e ./book"]
    (python,) = [entry for entry in environment() if isinstance(entry, str) and entry.startswith("python")]
    ours, theirs = SpecifierSet(PROJECT["requires-python"]), SpecifierSet(python.removeprefix("python"))
    for minor in range(8, 14):
        assert (f"3.{minor}" in ours) == (f"3.{minor}" in theirs)


@each_notebook
def test_what_a_notebook_imports_comes_with_the_studies(path):
    """The first cell installs library and studies alone; tests/test_launch.py runs it."""
    (cell,) = tagged(path, "colab")
    assert not re.search(r"==\d", cell.source), "a pin fights with what Colab has"
    comes = {canonicalize_name(Requirement(line).name) for line in (*PROJECT["dependencies"], *STUDIES["dependencies"])}
    packages = {"skrf": "scikit-rf", "skfem": "scikit-fem", "sionna": "sionna-no-rt"}
    source = "\n".join(other.source for other in code_cells(path))
    for name in re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE):
        if name not in sys.stdlib_module_names and name != "studies":
            assert packages.get(name, name) in comes, name


def test_the_set_up_installs_every_extra():
    assert f'"-e", ".[{",".join(EXTRAS)}]", "-e", "./book"' in (ROOT / ".ci" / "bootstrap.py").read_text("utf-8")


# The library


@functools.cache
def nodes(path):
    """All nodes of the syntax tree of a file."""
    return list(ast.walk(ast.parse(path.read_text("utf-8"))))


def imports(path):
    """Dotted names of what a file imports, anywhere in it."""
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: write absolute imports"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def sources(place):
    """Files of a place: a module, or all modules of a subpackage."""
    folder = ROOT / "neumatc" / place
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def test_every_module_has_its_place():
    assert set(ORDER.split()) == PLACES


@pytest.mark.parametrize("place", ORDER.split())
def test_imports_go_one_way(place):
    names = {name for path in sources(place) for name in imports(path) if name.partition(".")[0] == "neumatc"}
    before = set(ORDER.split()[: ORDER.split().index(place)])
    found = {name.split(".")[1] for name in names} - {place}
    assert found <= ONLY.get(place, before - set(ONLY))


def test_the_library_does_not_import_what_serves_the_book():
    assert [path.name for path in SOURCES if any(name.partition(".")[0] == "studies" for name in imports(path))] == []


# A Python without the packages of the extras, which runs the examples as `pytest --pyargs neumatc` does.
ALONE = """
import importlib.util, sys, pytest
found = importlib.util.find_spec
missing = ("sionna", "matplotlib", "distributed")
sys.modules.update(dict.fromkeys(missing))
importlib.util.find_spec = lambda name, package=None: None if name in missing else found(name, package)
sys.exit(pytest.main(["--pyargs", "neumatc", "-rs"]))
"""


@pytest.mark.slow
def test_examples_run_where_the_library_is_installed_alone(tmp_path):
    """Without the settings of this repository; `.ci/library-alone` does it in a clean environment."""
    command, environment = [sys.executable, "-c", ALONE], os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    assert "needs sionna" in result.stdout
    assert int(re.search(r"(\d+) passed", result.stdout)[1]) > 10


def test_the_wheel_is_the_library_and_nothing_else():
    folders = {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in SOURCES}
    assert set(CONFIG["tool"]["setuptools"]["packages"]) == folders


def code_lines(path):
    """Number of lines of a file with a token that is neither comment nor docstring."""
    documentation = set()
    for node in nodes(path):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            documentation |= set(range(node.lineno, node.end_lineno + 1))
    blank = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline):
        if token.type not in blank:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - documentation)


def test_the_library_stays_small():
    """What is added says by how much; the aim for the map in pieces alone was 4,900 lines."""
    assert sum(code_lines(path) for path in SOURCES) <= 11_890


def test_no_function_is_complex():
    """The limit stands in ruff's settings: 12 ways through a function."""
    command = [sys.executable, "-m", "ruff", "check", "--select", "C901", "neumatc", "book/studies"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert CONFIG["tool"]["ruff"]["lint"]["mccabe"]["max-complexity"] == 12


def test_no_class_is_long():
    long = {}
    for path in SOURCES:
        for node in nodes(path):
            if isinstance(node, ast.ClassDef) and node.end_lineno - node.lineno + 1 > 200:
                long[f"{path.name}: {node.name}"] = node.end_lineno - node.lineno + 1
    assert long == {}


def test_the_reference_lists_every_module():
    text = (ROOT / "book" / "reference.md").read_text("utf-8")
    assert [place for place in ORDER.split() if f"neumatc.{place}" not in text] == []


# Notebooks


def test_the_book_has_every_notebook():
    assert sorted(runs.book_chapters()) == [path.stem for path in NOTEBOOKS]
    assert NOTEBOOKS


@each_notebook
def test_every_code_cell_has_run_without_error(path):
    for cell in code_cells(path):
        assert cell.source.strip(), "an empty cell"
        assert cell.execution_count is not None, f"make refresh: this cell has not run:\n{cell.source}"
        assert all(output.output_type != "error" for output in cell.outputs), cell.source


@each_notebook
def test_the_saved_notebook_is_the_smoke_run(path):
    defaults = runs.default_parameters(notebook(path), path.stem)
    assert defaults == {"profile": "smoke", "device": "auto", "seed": 0}
    assert notebook(path).metadata.kernelspec.name == "python3"


def figures():
    for path in NOTEBOOKS:
        for cell in code_cells(path):
            if any(kind.startswith("image/") for output in cell.outputs for kind in output.get("data", ())):
                yield path.stem, cell


def test_every_figure_has_name_caption_and_alternative_text():
    names = []
    for chapter, cell in figures():
        data = cell.metadata.get("mystnb", {})
        where = f"{chapter}:\n{cell.source}"
        assert set(data.get("figure", {})) >= {"name", "caption"}, where
        assert len(data["figure"]["caption"].strip()) > 10, where
        assert len(data.get("image", {}).get("alt", "").strip()) > 10, where
        names.append(data["figure"]["name"])
    assert sorted(names) == sorted(set(names))


def test_every_name_of_the_reference_exists():
    """Otherwise the HTML fails, after a quarter of an hour."""
    owner, missing = None, []
    for line in (ROOT / "book" / "reference.md").read_text("utf-8").splitlines():
        if found := re.match(r"\.\. auto\w+:: ([\w.]+)", line):
            try:
                owner = pkgutil.resolve_name(found[1])
            except (ImportError, AttributeError):
                missing.append(found[1])
        elif found := re.match(r" +:members: (.+)", line):
            missing += [f"{owner}: {name}" for name in found[1].split(", ") if not hasattr(owner, name)]
    assert missing == []


def test_published_records_are_whole_and_not_smoke():
    folder = ROOT / "notebooks" / "records"
    for path in sorted(set(folder.glob("*.json")) - {folder / digests.NAME}):
        content = json.loads(path.read_text("utf-8"))
        assert content["chapter"] == path.stem
        assert content["parameters"]["profile"] in ("cpu", "study", "gpu")
        assert path.with_suffix(".npz").is_file() == bool(content["arrays"])


def test_published_records_are_as_they_were_published():
    """What changes one notes its digests; a file that came with a merge: python -m studies.digests FILE."""
    assert digests.differing(ROOT / "notebooks" / "records") == []


# Files


def test_no_path_of_a_machine_and_no_package_index_in_tracked_files():
    words = re.compile(
        r"(^|[^A-Za-z0-9_.:/-])/(home|root|work|tmp|opt|Users)/[A-Za-z]"
        r"|index[-]url|[-]-registry|pypi[.]org|pythonhosted[.]org|download[.]pytorch[.]org|registry[.]npmjs",
        re.MULTILINE,
    )
    found = []
    for path in tracked():
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in words.finditer(text)]
    assert found == []


def test_nothing_generated_and_nothing_large_is_tracked():
    for path in tracked():
        name = path.relative_to(ROOT)
        folders = {"book", "neumatc", "notebooks", "tests", "findings", ".ci", ".github"}
        assert name.parts[0] in folders or len(name.parts) == 1, name
        assert path.stat().st_size < 2**20, name


@pytest.mark.parametrize(
    "name", ["_config.yml", "CITATION.cff", ".github/workflows/test.yml", ".github/workflows/book.yml"]
)
def test_yaml_is_well_formed(name):
    assert isinstance(yaml.safe_load((ROOT / name).read_text("utf-8")), dict)


def test_the_version_is_the_same_everywhere():
    version = PROJECT["version"]
    assert STUDIES["version"] == version
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"] == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


# Set-up


@pytest.fixture(scope="module")
def bootstrap():
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / ".ci" / "bootstrap.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_old_python_can_read_the_set_up():
    new = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.Match, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse((ROOT / ".ci" / "bootstrap.py").read_text("utf-8"))):
        assert not isinstance(node, new), ast.unparse(node)
        if isinstance(node, (ast.FunctionDef, ast.arguments)):
            assert getattr(node, "returns", None) is None
            assert not getattr(node, "posonlyargs", None)


@pytest.mark.parametrize(
    ("report", "cause"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "the disk is full"),
        (
            "WARNING: Retrying ... NewConnectionError: Failed to establish a new connection: [Errno -3]\n"
            "ERROR: No matching distribution found for setuptools>=77",
            "no network",
        ),
        ("ERROR: No matching distribution found for torch==2.13.0", "no build for Python 3."),
        ("ERROR: something new", "pip's error is above"),
    ],
)
def test_a_failed_installation_is_explained(bootstrap, report, cause):
    found, remedy = bootstrap.diagnose(report)
    assert cause in found
    assert remedy


def test_an_old_python_and_a_full_disk_are_named(bootstrap, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(bootstrap, "FREE_GB", 1e9)
        with pytest.raises(SystemExit):
            bootstrap.check_prerequisites()
        assert re.search(r"^error: the disk is full: .* GB are needed; free some", capsys.readouterr().err)
    with monkeypatch.context() as patch:
        patch.setattr(bootstrap, "OLDEST", (4, 0))
        with pytest.raises(SystemExit):
            bootstrap.check_prerequisites()
        assert f"{sys.executable} is {sys.version_info[0]}." in capsys.readouterr().err


def test_the_stamp_follows_what_the_environment_is_made_from(bootstrap, monkeypatch, tmp_path):
    monkeypatch.setattr(bootstrap, "ROOT", str(tmp_path))
    for name in bootstrap.INPUTS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    digests = [bootstrap.digest()]
    for name in bootstrap.INPUTS:
        (tmp_path / name).write_text("changed")
        digests.append(bootstrap.digest())
    monkeypatch.setattr(bootstrap, "VENV", str(tmp_path / "moved"))
    digests.append(bootstrap.digest())
    assert len(set(digests)) == len(digests)
    # Without a Python that runs, a stamp is worth nothing.
    monkeypatch.setattr(bootstrap, "STAMP", str(tmp_path / "stamp"))
    assert bootstrap.read_stamp() is None
    (tmp_path / "stamp").write_text("content")
    monkeypatch.setattr(bootstrap, "PYTHON", sys.executable)
    assert bootstrap.read_stamp() == "content"
    monkeypatch.setattr(bootstrap, "PYTHON", str(tmp_path / "gone"))
    assert bootstrap.read_stamp() is None


def test_make_lists_its_targets_and_refuses_unknown_settings():
    listing = subprocess.run(["make", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True).stdout
    for target in ("setup", "book", "test", "check", "run", "sweep", "reproduce", "clean"):
        assert re.search(rf"^  {target} +\S", listing, re.MULTILINE)
    wrong = subprocess.run(["make", "-C", str(ROOT), "run", "CHAPTR=x"], capture_output=True, text=True, check=False)
    assert wrong.returncode != 0
    assert "unknown setting CHAPTR" in wrong.stderr
    wrong = subprocess.run(
        ["make", "-C", str(ROOT), "reproduce", "SEED=3"], capture_output=True, text=True, check=False
    )
    assert wrong.returncode != 0
    assert "unknown setting SEED; expected one of CHAPTER PROFILE PYTHON" in wrong.stderr
