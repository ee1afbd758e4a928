"""The study of a GPU runs at the size of a test on a CPU and judges by quartiles; the profile gpu of the chapters."""

import ast
import json
import math
import re
from pathlib import Path

import pytest
import torch

import neumatc as nm
from studies import device, provenance
from studies.benchmark import Ratio

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.filterwarnings("ignore::neumatc.FitWarning")


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("run"))
        made = device.take(device.TINY, "cpu", judged=False)
        assert provenance.load("device_cpu", "smoke").numbers.keys() == device.TASKS.keys()
    return made


@pytest.mark.slow
def test_each_goal_is_measured_at_the_size_of_a_test(record):
    assert (record.chapter, record.profile, record.device) == ("device_cpu", "smoke", "cpu")
    shown = device.goals(record).rows
    wanted = [f"{task}: {row['name']}" for task, key, *_ in device.GOALS for row in record.numbers[task] if key in row]
    assert [row[0] for row in shown] == wanted and {key for _, key, *_ in shown} == {key for _, key, *_ in device.GOALS}
    assert {row[4] for row in shown} <= {"yes", "no"}
    for rows in record.numbers.values():
        assert all(row["met"] and row["solves"] > 0 and row["conditions"]["rounds"] >= 2 for row in rows)
        assert all(ratio.lower > 0 for row in rows for ratio in row.values() if isinstance(ratio, Ratio))


def test_products_of_a_lower_precision_are_beside_with_their_error(record):
    assert all(0 < row["error of bf16"] < 2.0**-5 for row in record.numbers["values"])


def test_goals_are_judged_by_all_quartiles(record):
    numbers = dict.fromkeys(record.numbers)
    for ratio, met in [((19.0, 30.0, 40.0), "no"), ((20.0, 30.0, 40.0), "yes"), ((math.nan,) * 3, "not timed")]:
        numbers["inverse"] = [{"name": "x", "Cholesky over evaluation": Ratio(*ratio)}]
        numbers["values"] = [{"name": "y", "in place over a copy": [1.0, 1.2, 1.26]}]
        made = provenance.Record("device_cpu", "smoke", "cpu", 0, numbers=dict(numbers))
        found = {row[0]: row[4] for row in device.goals(made).rows}
        assert found["inverse: x"] == met and found["values: y"] == "no"
        assert found["many"] == "" and "many: " not in found


def test_tasks_beyond_the_limit_are_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = device.take(device.TINY, "cpu", judged=False, limit=0.0)
    assert set(made.numbers.values()) == {None}
    assert all("left out" in row[3] for row in device.goals(made).rows)


def test_records_are_named_after_the_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200 (SXM)")
    assert device.named("cuda:0") == "device_nvidia_h200_sxm"
    assert provenance.check_chapter(device.named("cuda")) and device.named("cpu") == "device_cpu"


def test_triplets_by_the_gram_matrix_are_singular_triplets():
    H = device.channel(6, 9, "cpu")(device.tones(5, "cpu"))
    U, S, Vh = device.by_gram(H)
    assert torch.allclose(S, torch.linalg.svdvals(H)[:, :4], rtol=1e-3, atol=1e-3)
    error = nm.Problem(device.channel(6, 9, "cpu"), nm.SVD(rank=4)).error(device.tones(5, "cpu"), (U, S, Vh))
    assert (error < 1e-2).all()


def test_a_machine_without_cuda_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="needs the CUDA device cuda"):
        device.main([])


# The profile gpu of the chapters

NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}


def code(chapter):
    """Return the code of a notebook, and of the studies that it imports by name, but for the modules that all share."""
    cells = json.loads(NOTEBOOKS[chapter].read_text("utf-8"))["cells"]
    own = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    names = {
        name.name
        for node in ast.walk(ast.parse(re.sub(r"^[%!].*", "", own, flags=re.M)))
        if isinstance(node, ast.ImportFrom) and node.module == "studies"
        for name in node.names
    } - {"figures", "provenance", "last_good", "low_rankness" if chapter != "low_rankness" else ""}
    return own, "\n".join((ROOT / "book" / "studies" / f"{name}.py").read_text("utf-8") for name in sorted(names))


def linked(text):
    return set(re.findall(r"notebooks/(\w+)`", text))


def test_every_chapter_has_the_profile_gpu_and_its_record_the_device():
    assert len(NOTEBOOKS) > 10
    for chapter in NOTEBOOKS:
        own, _ = code(chapter)
        assert f'provenance.Record("{chapter}", profile=profile, device=device, seed=seed)' in own
        assert "device = provenance.resolve_device(device, profile)" in own, chapter


def test_the_page_names_the_chapters_that_compute_on_the_processor():
    page = (ROOT / "book" / "reproduce.md").read_text("utf-8")
    named = linked(page.partition("at every profile")[2].partition("Records of a GPU")[0])
    found = set()
    for chapter in NOTEBOOKS:
        own, studied = code(chapter)
        rest = own.replace("device=device, seed=seed)", "", 1).replace("resolve_device(device, profile)", "")
        placed = re.search(r"\bdevice\b(?!\s*=)", re.sub(r"#.*", "", rest)) or "record.device" in studied
        found |= set() if placed else {chapter}
    assert named == found


def test_the_page_names_the_chapters_that_have_a_record_of_a_gpu():
    page = (ROOT / "book" / "reproduce.md").read_text("utf-8")
    named = linked(page.partition("Records of a GPU")[2].partition("For the other chapters")[0])
    records = {
        path.stem: json.loads(path.read_text("utf-8")) for path in (ROOT / "notebooks" / "records").glob("*.json")
    }
    kept = {name: x for name, x in records.items() if x.get("parameters", {}).get("device", "").startswith("cuda")}
    assert named == {name for name in kept if not name.startswith("device_")}
    assert all(x["provenance"]["machine"]["gpu"] for x in kept.values())
    measured = any(name.startswith("device_") for name in kept)
    assert measured == ("no record of it is" not in page)
