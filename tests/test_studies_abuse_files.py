"""A sample of the abuse of files; ``python -m studies.abuse_files`` is the whole."""

import torch

from studies import abuse_files


def test_damaged_files_are_refused_or_harmless(tmp_path):
    outcomes = abuse_files.damaged(60, tmp_path)
    assert sum(outcomes.values()) == 60
    assert [name for name in outcomes if name.split(": ", 1)[-1] not in ("refused", "loaded")] == []


def test_a_killed_save_leaves_a_whole_file(tmp_path):
    torch.set_num_threads(1)
    outcomes = abuse_files.kills(2, tmp_path)
    assert outcomes["whole"] == 2
    assert outcomes["left something behind after the next save"] == 0


def test_saves_at_the_same_time_lose_nothing(tmp_path):
    outcomes = abuse_files.saves(8, tmp_path, threads=2, processes=2)
    assert outcomes["saved"] == 8
    assert [outcomes[name] for name in ("lost", "torn", "failed", "left behind")] == [0] * 4
