"""Trained maps of the wireless chapter: trained where a run has the time, else those of the published record."""

import pytest
import torch

import neumatc as nm
from studies import provenance, wireless_inversion
from studies.provenance import Record


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "neumatc"\n')
    (tmp_path / "notebooks" / "records").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems():
    return {"cdl_a": nm.Problem(nm.families.trigonometric(size=4, seed=0), nm.Inverse())}


P = {"cdl_a": torch.linspace(0, 1, 50)[:, None]}


@pytest.mark.filterwarnings("ignore::neumatc.FitWarning")
def test_a_page_loads_the_published_maps_and_counts_their_training(project):
    small = Record("wireless_inversion", profile="smoke", device="cpu", seed=0)
    maps = wireless_inversion.trained_maps(small, problems(), P, rank=3, steps=5)
    assert small.numbers["steps"] == 5
    published = Record(wireless_inversion.TRAINED, profile="study", device="cpu", seed=0)
    published.numbers |= {"steps": 7, "cdl_a": {"cost_in_inversions": 1e6}}
    published.save()
    provenance.publish(wireless_inversion.TRAINED, "study")
    nm.save(maps["cdl_a"], project / "notebooks" / "records" / "wireless_trained_cdl_a.safetensors")
    page = Record("wireless_inversion", profile="cpu", device="cpu", seed=0)
    loaded = wireless_inversion.trained_maps(page, problems(), P, rank=3, steps=5)
    assert page.numbers["steps"] == 7
    torch.testing.assert_close(loaded["cdl_a"](P["cdl_a"]), maps["cdl_a"](P["cdl_a"]), rtol=0, atol=0)
    assert small.numbers["cdl_a"]["training_in_inversions"] > 0
    assert page.numbers["cdl_a"]["training_in_inversions"] == 1e6, "no clock of this machine counts"
