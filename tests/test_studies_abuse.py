"""Generated abuse, a sample: random bad calls over every public name raise what is documented, and nothing hangs."""

import pytest
import torch

import neumatc as nm
from studies import abuse


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_bad_calls_do_what_is_documented(seed):
    outcome = abuse.calls(count=200, seed=seed)
    assert outcome.findings == []
    assert sum(outcome.counts.values()) == 200 and outcome.counts["TypeError"] > 20


def test_every_public_name_is_called_or_left_out_for_a_reason(tmp_path):
    called = {target.label for target in abuse.targets(tmp_path)}
    assert abuse.public().keys() - called == abuse.NOT_CALLED & abuse.public().keys()
    assert {
        "surrogate.grid",
        "problem.error",
        "channel.gram",
        "peer.__call__",
        "linalg.svd",
        "save",
        "wireless.cdl",
    } <= called


@pytest.mark.parametrize(
    ("raised", "word"),
    [
        (AttributeError("x"), "undocumented AttributeError"),
        (ValueError("`p`: " + 300 * "x"), "characters"),
        (OSError("`p`: " + 300 * "x"), "characters"),
        (OSError("[Errno 36] File name too long"), "no argument is named"),
        (ValueError("`p`: got tensor([[1.0]])"), "with an array"),
        (TypeError("object of type 'int' has no len()"), "no argument is named"),
        (abuse.SlowError(), "longer"),
    ],
    ids=repr,
)
def test_what_must_not_happen_is_found(raised, word):
    def call(p):
        raise raised

    kind, wrong = abuse.one_call(abuse.Target("name", call, {"p": 1}), {"p": 1})
    assert kind == type(raised).__name__ and word in wrong


def test_what_is_documented_is_no_finding():
    family = nm.families.trigonometric(2)
    for p in (torch.zeros(2, 5), None, [float("nan")]):
        kind, wrong = abuse.one_call(abuse.Target("family", family, {}), {"p": p})
        assert kind in ("ValueError", "TypeError") and wrong == ""


def test_a_check_that_fails_is_documented_where_the_docstring_says_so():
    def call(p):
        raise AssertionError("residual of the solution: 1e-7, above rounding, 1e-8")

    assert "undocumented" in abuse.one_call(abuse.Target("name", call, {}), {"p": 1})[1]
    call.__doc__ = nm.testing.check_operation.__doc__
    assert abuse.one_call(abuse.Target("name", call, {}), {"p": 1}) == ("AssertionError", "")


def test_a_command_prints_its_counts(capsys):
    assert abuse.main(["calls", "--count", "5", "--labels", "^Box$"]) == 0
    assert "5 calls in" in capsys.readouterr().out
