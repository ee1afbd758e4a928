"""Reruns: headline numbers beside the published ones, and what a changed digit does."""

import json
import math

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from studies import headlines, load, provenance, reproduce, runs
from studies.headlines import HEADLINES, Headline

PROFILES = ("smoke", "cpu")
# Chapters that show records of their own, taken elsewhere.
SHOWING = {"frequency_and_time", "link_level", "measured", "scaling_out", "training_search"}


def headline(**settings):
    return Headline(**{"id": "tiny-error", "text": "x", "path": "tiny/error", "within": 0.01} | settings)


def published(profile):
    content = headlines.expected(profile)
    return {one.id: (one, provenance.restore(content["values"][one.id])) for one in HEADLINES}


# The list


def test_headlines_have_names_of_their_own():
    names = [one.id for one in HEADLINES]
    assert sorted(names) == sorted(set(names))
    for one in HEADLINES:
        assert one.id.startswith(one.chapter.replace("_", "-") + "-"), one.id
        assert one.text


def test_every_chapter_has_a_headline_or_shows_records():
    assert {one.chapter for one in HEADLINES} == set(runs.book_chapters()) - SHOWING


def test_only_what_hangs_on_rounding_by_its_nature_may_be_off_by_more_than_a_few_per_cent():
    """Training, the vectors as LAPACK returns them, and AAA in single precision."""
    wide = {one.id for one in HEADLINES if one.within > 0.03}
    trained = {"architecture-trained", "wireless-inversion-a-trained", "wireless-inversion-c-trained"}
    assert wide == trained | {"continuity-returned", "to-the-limit-aaa"}


@pytest.mark.parametrize("profile", PROFILES)
def test_every_headline_is_published_and_nothing_else(profile):
    content = headlines.expected(profile)
    assert set(content["values"]) == {one.id for one in HEADLINES}
    assert set(content["chapters"]) == set(runs.book_chapters())
    for chapter in content["chapters"].values():
        assert {"date", "commit", "command", "machine", "versions", "seconds"} <= set(chapter)


def test_nothing_is_published_at_gpu_yet():
    assert headlines.expected("gpu") == {"values": {}, "chapters": {}}


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match="expected one of error, count, timing, got 'speed'"):
        headline(kind="speed")


# The judgement


@pytest.mark.parametrize(
    ("settings", "expected", "got", "verdict"),
    [
        ({}, 1e-3, 1.009e-3, "pass"),
        ({}, 1e-3, 1.011e-3, "FAIL"),
        ({}, 1e-3, 0.989e-3, "FAIL"),
        ({"within": 0.0, "floor": 1e-12}, 1e-14, 8e-13, "pass"),
        ({"within": 0.0, "floor": 1e-12}, 1e-14, 2e-12, "FAIL"),
        ({}, math.inf, math.inf, "pass"),
        ({}, math.nan, math.nan, "pass"),
        ({}, 1e-3, math.nan, "FAIL"),
        ({}, math.nan, 1e-3, "FAIL"),
        ({"kind": "count", "within": 0.0}, 16, 16, "pass"),
        ({"kind": "count", "within": 0.0}, 16, 17, "FAIL"),
        ({}, None, 1e-3, "no published number"),
        ({"kind": "timing"}, [1.0, 2.0, 3.0], [2.5, 4.0, 5.0], "pass"),
        ({"kind": "timing"}, [1.0, 2.0, 3.0], [3.5, 4.0, 5.0], "timing, outside of the spread"),
        ({"kind": "timing"}, 2.0, 2.0, "timing, not judged: no spread"),
        ({"kind": "timing"}, [1.0, 2.0, 3.0], [math.nan] * 3, "timing, not judged: it was refused"),
    ],
)
def test_the_verdict(settings, expected, got, verdict):
    assert reproduce.judge(headline(**settings), expected, got).verdict == verdict


def test_times_of_a_loaded_machine_are_not_judged_and_errors_are():
    timing = reproduce.judge(headline(kind="timing"), [1.0, 2.0, 3.0], [9.0, 9.0, 9.0], loaded=True)
    assert timing.verdict == "timing, not judged: the machine was loaded"
    assert reproduce.judge(headline(), 1e-3, 2e-3, loaded=True).verdict == "FAIL"


def changed(number, digit):
    """A number whose first, second or later digit is another one: 5 more or less."""
    mantissa, exponent = f"{number:.6e}".split("e")
    digits = mantissa.replace(".", "").replace("-", "")
    other = digits[:digit] + str((int(digits[digit]) + 5) % 10) + digits[digit + 1 :]
    return math.copysign(float(f"{other[0]}.{other[1:]}e{exponent}"), number)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_digit_that_is_changed_on_purpose_is_caught(profile):
    """The second digit, which pages show; of what thousands of steps or cuts decide, the first."""
    for one, number in published(profile).values():
        if one.kind == "error" and abs(number) > 10 * one.floor:
            digit = 1 if one.within <= headlines.SINGLE and abs(number) > 100 * one.floor else 0
            assert reproduce.judge(one, number, changed(number, digit)).verdict == "FAIL", one.id
            assert reproduce.judge(one, number, number).verdict == "pass", one.id


# The run


@pytest.fixture
def project(tmp_path, monkeypatch):
    """One chapter whose runs are pretended; the error that it finds can be set."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "neumatc"\n')
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "_toc.yml").write_text("chapters: [{file: notebooks/tiny}]\n")
    parameters = 'profile = "smoke"\ndevice = "auto"\nseed = 0'
    cells = [new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    nbformat.write(new_notebook(cells=cells), tmp_path / "notebooks" / "tiny.ipynb")
    monkeypatch.chdir(tmp_path)
    found = {"error": 1.234e-3, "ratio": [1.0, 2.0, 3.0]}

    def execute(chapter, output, parameters):
        if "raises" in found:
            raise found["raises"]
        record = provenance.Record(chapter, **parameters)
        record.numbers |= found
        record.save()

    monkeypatch.setattr(load.Watch, "load", lambda self, wait=True: load.Load(0.0, 0.0))  # whatever the machine does
    monkeypatch.setattr(runs, "_execute", execute)
    listed = (headline(), headline(id="tiny-time", path="tiny/ratio", kind="timing"))
    monkeypatch.setattr(reproduce, "HEADLINES", listed)
    return found


def test_a_rerun_passes_and_fails_where_an_error_disagrees(project, capsys, tmp_path):
    assert reproduce.main(["run", "--profile", "smoke"]) == 0
    assert "There are no published numbers at the smoke profile yet" in capsys.readouterr().out
    assert reproduce.main(["publish", "--profile", "smoke"]) == 0
    assert reproduce.main(["run", "--profile", "smoke"]) == 0
    assert "2 of 2 pass" not in capsys.readouterr().err
    project["ratio"] = [7.0, 8.0, 9.0]
    assert reproduce.main(["run", "--profile", "smoke"]) == 0
    project["error"] = 1.334e-3
    assert reproduce.main(["run", "--profile", "smoke", "tiny"]) == 1
    text = capsys.readouterr().out
    assert "tiny-error       0.001234   0.001334" in text
    assert "2 of 3 pass" not in text
    rows = json.loads((tmp_path / "_build" / "reproduce" / "smoke.json").read_text("utf-8"))["rows"]
    assert [(row["id"], row["verdict"]) for row in rows] == [
        ("tiny", "pass"),
        ("tiny-error", "FAIL"),
        ("tiny-time", "timing, outside of the spread"),
    ]
    table = (tmp_path / "_build" / "reproduce" / "smoke.md").read_text("utf-8")
    assert "| figure or claim | expected | got | within | pass |" in table
    assert (tmp_path / "_build" / "runs" / "smoke" / "tiny.json").is_file()


def test_what_lies_there_is_compared_without_a_run(project, capsys):
    assert reproduce.main(["compare", "--profile", "smoke"]) == 1
    assert "error: no record smoke/tiny.json" in capsys.readouterr().err
    runs.run("tiny", "smoke")
    project["raises"] = RuntimeError("it must not run")
    assert reproduce.main(["compare", "--profile", "smoke"]) == 0


@pytest.mark.parametrize("error", [RuntimeError, TimeoutError])
def test_a_chapter_that_fails_is_a_row_that_fails(project, capsys, error):
    project["raises"] = error("cell [2] failed")
    assert reproduce.main(["run", "--profile", "smoke"]) == 1
    assert "cell [2] failed" in capsys.readouterr().out


def test_a_number_that_is_gone_is_named(project, capsys):
    del project["error"]
    assert reproduce.main(["run", "--profile", "smoke"]) == 1
    assert "tiny-error: expected a number at 'tiny/error' of the records." in capsys.readouterr().err


def test_publishing_a_chapter_leaves_the_others(project, monkeypatch):
    runs.run("tiny", "smoke")
    path = reproduce.expected_path("smoke")
    path.parent.mkdir()
    path.write_text(json.dumps({"values": {"gone": 1.0, "other": 2.0}, "chapters": {"other": {"seconds": 3.0}}}))
    listed = (*reproduce.HEADLINES, headline(id="other", path="other/error"))
    monkeypatch.setattr(reproduce, "HEADLINES", listed)
    reproduce.publish("smoke", ["tiny"])
    content = headlines.expected("smoke")
    assert content["values"] == {"other": 2.0, "tiny-error": 1.234e-3, "tiny-time": [1.0, 2.0, 3.0]}
    assert content["chapters"]["other"] == {"seconds": 3.0}
    assert content["chapters"]["tiny"]["command"] == "make run CHAPTER=tiny PROFILE=smoke DEVICE=cpu SEED=0"


def test_unknown_chapters_and_profiles_are_refused(project, capsys):
    assert reproduce.main(["run", "tony", "--profile", "smoke"]) == 1
    assert "error: `chapter`: expected one of tiny, got 'tony'." in capsys.readouterr().err
    with pytest.raises(SystemExit):
        reproduce.main(["run", "--profile", "full"])
    assert "invalid choice: 'full' (choose from" in capsys.readouterr().err
    with pytest.raises(ValueError, match="expected one of smoke, cpu, gpu, got 'full'"):
        headlines.expected("full")
