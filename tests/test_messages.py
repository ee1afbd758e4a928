"""Every public kind of error: its message names the argument and the remedy, is short, and holds no array."""

import re

import numpy as np
import pytest
import torch
from conftest import assert_raises, random_surrogate

import neumatc as nm

MANY = 40  # parameters: what a message lists of them must not grow with their number


def eye(p):
    return torch.eye(2, dtype=p.dtype).expand(len(p), 2, 2) * (1 + p[:, :1, None])


FAMILY = nm.ParametricMatrix(eye, 0.0, 1.0, dtype=torch.float64)
WIDE = nm.ParametricMatrix(eye, [0.0] * MANY, [1.0] * MANY, dtype=torch.float64)
PROBLEM = nm.Problem(FAMILY, nm.Inverse())
SURROGATE = random_surrogate(nm.Inverse(), 3, 3, torch.float64)
SVD = random_surrogate(nm.SVD(rank=2), 4, 4, torch.float64)
BIG = np.random.default_rng(0).normal(size=(200, 3, 3))
P = np.linspace(0, 1, 200)
PATHS = torch.ones(2, 3, 2, 1, dtype=torch.complex64)


def bad_far(p):
    if (p > 0.9).any():
        raise RuntimeError(f"cannot solve\n{BIG}")
    return eye(p)


CALLS = {
    "bounds reversed": lambda: nm.Box([1.0] * MANY, [0.0] * MANY),
    "bounds of another number": lambda: nm.Box([0.0] * MANY, [1.0]),
    "bounds not finite": lambda: nm.Box([np.nan] * MANY, [1.0] * MANY),
    "bounds no numbers": lambda: nm.Box("a", 1.0),
    "bounds complex": lambda: nm.Box(torch.tensor([1j]), 1.0),
    "bounds too close": lambda: nm.Box([1e8] * MANY, [1e8 + 10] * MANY),
    "scale": lambda: nm.Box(0.0, 1.0, scale="log"),
    "scale unknown": lambda: nm.Box(0.0, 1.0, scale="cubic"),
    "names": lambda: nm.Box(0.0, 1.0, names=["a"] * 200),
    "device": lambda: nm.Box(0.0, 1.0, device="cuda:77"),
    "flag": lambda: nm.Box(0.0, 1.0, periodic=BIG),
    "function": lambda: nm.ParametricMatrix(BIG, 0.0, 1.0),
    "one at a time": lambda: nm.ParametricMatrix(lambda x: np.eye(2), 0.0, 1.0),
    "shape of matrices": lambda: nm.ParametricMatrix(lambda p: torch.ones(5, 2, 2), 0.0, 1.0),
    "dtype of matrices": lambda: nm.ParametricMatrix(lambda p: torch.ones(1, 2, 2).half(), 0.0, 1.0),
    "not finite anywhere": lambda: nm.ParametricMatrix(lambda p: eye(p) / 0, [0.0] * MANY, [1.0] * MANY),
    "function raises": lambda: nm.ParametricMatrix(bad_far, [0.0] * MANY, [1.0] * MANY)(np.ones((3, MANY))),
    "periodic": lambda: nm.ParametricMatrix(eye, 0.0, 1.0, periodic=True),
    "outside": lambda: WIDE(np.full((500, MANY), 1.0 + 1e-3)),
    "not finite": lambda: WIDE(np.full((500, MANY), np.nan)),
    "width": lambda: WIDE(BIG),
    "empty": lambda: FAMILY(np.ones((0, 1))),
    "no numbers": lambda: FAMILY(["a"] * 500),
    "another device": lambda: FAMILY(torch.zeros(1, 1, device="meta")),
    "beside": lambda: nm.families.beside(WIDE, FAMILY),
    "samples": lambda: nm.families.from_samples(P[:, None].repeat(MANY, 1), BIG),
    "operation": lambda: nm.Problem(FAMILY, BIG),
    "operation without brackets": lambda: nm.Problem(FAMILY, nm.Inverse),
    "family": lambda: nm.Problem(BIG, nm.Inverse()),
    "rectangular": lambda: nm.Problem(nm.families.beside(FAMILY, torch.ones(2, 1).double()), nm.Inverse()),
    "rank of an operation": lambda: nm.Problem(FAMILY, nm.SVD(rank=9)),
    "value": lambda: PROBLEM.error(P, BIG),
    "value of another precision": lambda: PROBLEM.error(0.5, np.ones((1, 2, 2), np.float32)),
    "value complex": lambda: PROBLEM.error(0.5, np.ones((1, 2, 2), complex)),
    "value no tensors": lambda: PROBLEM.error(0.5, [[1.0] * 500]),
    "neither": lambda: nm.fit(PROBLEM),
    "rank": lambda: nm.fit(PROBLEM, rank=99),
    "rank no integer": lambda: nm.fit(PROBLEM, rank=BIG),
    "tol": lambda: nm.fit(PROBLEM, tol=1e-300),
    "tol no number": lambda: nm.fit(PROBLEM, tol=BIG),
    "budget": lambda: nm.fit(PROBLEM, tol=0.1, budget=1),
    "budget negative": lambda: nm.fit(PROBLEM, tol=0.1, budget=-(10**300)),
    "method": lambda: nm.fit(PROBLEM, rank=2, method=BIG),
    "method of many": lambda: nm.fit_many([PROBLEM], rank=2, method=nm.ResidualTraining()),
    "start": lambda: nm.fit(PROBLEM, method=nm.ResidualTraining(), start=SVD),
    "problems": lambda: nm.fit_many([PROBLEM, nm.Problem(WIDE, nm.Inverse())], rank=2),
    "no problems": lambda: nm.fit_many([], rank=2),
    "snapshots": lambda: nm.fit(PROBLEM, rank=2, method=nm.ClosedForm(snapshots=[2.0, 3.0])),
    "surrogate": lambda: nm.certify(SVD, PROBLEM, P),
    "out": lambda: SURROGATE(P, out=BIG),
    "out shape": lambda: SURROGATE(P, out=torch.ones(2, 3, 3, dtype=torch.float64)),
    "memory": lambda: SURROGATE(P, memory_budget=1),
    "batches": lambda: SURROGATE.batches(P, 1),
    "axes": lambda: SURROGATE.grid(P, P),
    "orthonormal": lambda: SURROGATE(P, orthonormal=True),
    "gradients": lambda: SURROGATE(torch.tensor([[0.5]], requires_grad=True), orthonormal=True),
    "precision": lambda: SURROGATE.to(torch.float16),
    "maps": lambda: nm.Surrogate(nm.Inverse(), (9, 9), SVD.maps, SVD.box, SVD.report),
    "no square": lambda: nm.linalg.inverse(torch.ones(1, 2, 3)),
    "no batch": lambda: nm.linalg.svd(BIG),
    "right-hand sides": lambda: nm.linalg.solve(torch.ones(1, 2, 2), torch.ones(2, 2, 2)),
    "not Hermitian": lambda: nm.linalg.eigh(torch.ones(2, 3, 3).triu()),
    "helper": lambda: nm.linalg.norm(BIG),
    "helper of several": lambda: nm.lowrank.pod(BIG, BIG, BIG),
    "embedding": lambda: nm.Chebyshev(index="a" * 500),
    "layers": lambda: nm.SinusoidalMLP(layers=0),
    "choice": lambda: nm.MatrixFunction(BIG),
    "noise": lambda: nm.LMMSE(noise=-1.0),
    "equaliser's kind": lambda: nm.Equaliser("mmse"),
    "equaliser of more users than antennas": lambda: nm.Equaliser("zf").factors(2, 3),
    "grid axes": lambda: nm.families.from_grid([BIG, BIG], BIG),
    "grid axes of lists": lambda: nm.families.from_grid([[3.0, 2.0], [1.0, 2.0]], torch.ones(2, 2, 2, 2)),
    "grid matrices": lambda: nm.families.from_grid([[2.0, 3.0], [1.0, 2.0]], BIG),
    "ticks": lambda: nm.Box(0.0, 1.0, ticks=[BIG]),
    "no ticks": lambda: nm.Box(0.0, 1.0, ticks=0.5),
    "share": lambda: nm.Pieces(share=2.0),
    "start of other pieces": lambda: nm.fit(PROBLEM, tol=1e-3, start=SURROGATE),
    "coefficients": lambda: nm.wireless.Channel(PATHS.real, torch.rand(2, 3), 0.0, 1.0),
    "delays": lambda: nm.wireless.Channel(PATHS, torch.rand(2, 4), 0.0, 1.0),
    "equaliser": lambda: nm.wireless.sum_rate(PATHS[0], PATHS[1, :, :1], 0.1),
    "peer": lambda: nm.peers.spline(nm.Problem(WIDE, nm.Inverse()), 9),
    "peer of several factors": lambda: nm.peers.chebyshev(nm.Problem(FAMILY, nm.SVD()), 9),
    "no peer": lambda: nm.peers.aaa(BIG, 9),
}


@pytest.mark.parametrize("size", [400, 5000])
@pytest.mark.parametrize("sign", [1, -1])
def test_huge_integers_are_not_printed_in_full(size, sign):
    """Of more digits than Python prints, too, anywhere among the integer arguments."""
    huge = sign * 10**size
    calls = [
        lambda: nm.peers.chebyshev(PROBLEM, 8, sides=huge),
        lambda: nm.peers.chebyshev(PROBLEM, huge),
        lambda: nm.fit(PROBLEM, rank=huge),
        lambda: nm.fit(PROBLEM, rank=2, seed=huge),
        lambda: nm.fit(PROBLEM, tol=huge),
        lambda: nm.families.trigonometric(huge),
        lambda: nm.SVD(rank=huge),
        lambda: SURROGATE(P, memory_budget=huge),
        lambda: FAMILY([huge]),
    ]
    for call in calls:
        with pytest.raises(
            (ValueError, TypeError), match=rf"^`\w+`: .*about {'-' * (sign < 0)}2\*\*\d+.*; .*\.$"
        ) as caught:
            call()
        assert len(str(caught.value)) < 200


def test_a_long_operation_is_cut_short():
    with pytest.raises(ValueError, match=r"`orthonormal`: expected .*, got True; leave it out\.$") as caught:
        nm.LMMSE([1.0] * 500).orthonormalize_([])
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("call", [
    PROBLEM.exact, lambda p: PROBLEM.residual(p, eye(p)), lambda p: PROBLEM.error(p, eye(p)),
    lambda p: nm.certify(nm.fit(PROBLEM, rank=2, progress=False), PROBLEM, p),
    lambda p: nm.ParametricMatrix(eye, 0.0, 1.0, grid=p),
])  # fmt: skip
def test_no_remedy_is_an_argument_that_the_call_has_not(call):
    with pytest.raises(
        ValueError, match=r"box \[0.0\] to \[1.0\], got \[1.5\] .*; leave those out, or enlarge the box\.$"
    ):
        call(torch.tensor([[1.5]], dtype=torch.float64))


@pytest.mark.parametrize(("call", "words"), [
    (lambda: nm.fit(FAMILY, nm.Inverse(), tol=1e-3), ["`fit`", "(problem, *,", "(ParametricMatrix, Inverse, tol=)"]),
    (lambda: nm.fit(PROBLEM, tolerance=1e-3), ["`fit`", "(problem, *, rank, tol,", "unexpected", "'tolerance'"]),
    (lambda: nm.fit(), ["`fit`", "missing a required argument: 'problem'"]),
    (lambda: nm.fit_many([PROBLEM], 1e-3), ["`fit_many`", "(problems, *, rank, tol,", "(list, float)"]),
    (lambda: nm.Problem(FAMILY), ["`Problem`", "(family, operation)", "(ParametricMatrix)", "'operation'"]),
    (lambda: nm.ParametricMatrix(eye, 0.0), ["`ParametricMatrix`", "(fn, lower, upper, *, batched,", "'upper'"]),
    (lambda: nm.certify(SURROGATE, PROBLEM), ["`certify`", "(surrogate, problem, p, *, rtol,", "'p'"]),
    (lambda: nm.families.from_samples(P, BIG, scales="log"), ["`from_samples`", "(p, A, *,", "'scales'"]),
])  # fmt: skip
def test_arguments_that_a_call_has_not_are_told_with_those_that_it_has(call, words):
    assert_raises(TypeError, [*words[:1], "expected the arguments", *words[1:], "by name."], call)


def test_bounds_that_are_the_same_are_not_to_be_swapped():
    for upper, words in ((0.0, ["swap"]), (1.0, ["fixed"])):
        assert_raises(
            ValueError, ["`upper`", "[1.0]", *words], lambda upper=upper: nm.Box(1.0, upper, dtype=torch.float64)
        )
    assert_raises(ValueError, ["`upper`", "float64"], lambda: nm.Box(1.0, 1.0 + 1e-9, dtype=torch.float32))


@pytest.mark.parametrize(
    ("batched", "given"), [(False, "one array of shape (2,)"), (True, "one tensor of shape (B, 2)")]
)
def test_a_function_of_other_arguments_is_told_what_it_gets(batched, given):
    def fn(a, b):
        return np.eye(2) * (a + b)

    words = ["`fn(p)`", "at p = [0.5, 0.5]", "TypeError", given]
    assert_raises(nm.FamilyError, words, lambda: nm.ParametricMatrix(fn, [0.0, 0.0], [1.0, 1.0], batched=batched))


@pytest.mark.parametrize("name", CALLS)
def test_a_message_is_short_and_names_argument_and_remedy(name):
    with pytest.raises((ValueError, TypeError)) as caught:
        CALLS[name]()
    message = str(caught.value)
    assert len(message) < 300, f"{len(message)} characters: {message}"
    assert re.search(r"`[\w\[\]()]+`", message), message
    assert re.search(r"expected .*; .*\.$", message), message  # the remedy is behind the semicolon
    assert "\n" not in message and not re.search(r"(tensor|array)\(", message), message
    assert len(re.findall(r"-?\d+\.\d+", message)) < 12, message
