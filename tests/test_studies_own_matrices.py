"""The chapter *Your own matrices*: files as other programs write them, models against formulas, and ten lines each."""

import math
import re
from pathlib import Path

import h5py
import nbformat
import numpy as np
import pytest
import scipy.linalg
import skrf
import torch

import neumatc as nm
from studies import benchmark, figures, front, last_good, own_matrices, provenance, runs, texts

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "your_own_matrices.ipynb"
STARTS = 6


def sections():
    """The code cells that the reader sees, under the heading of each starting point."""
    found = []
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if cell.cell_type == "markdown" and re.match("## (?!What this)", cell.source):
            found.append([])
        elif cell.cell_type == "code" and found and "hide-input" not in runs.tags(cell):
            found[-1].append(cell.source)
    return found


def test_each_start_takes_ten_lines_to_a_checked_surrogate_and_a_picture():
    assert len(sections()) == STARTS
    for cells in sections():
        text = "\n".join(cells)
        assert len([line for line in text.splitlines() if line.strip()]) <= 10, text
        assert "certify(" in text
        assert re.search(r"\.(plot|bands)\(", text)


def test_each_start_ends_with_what_to_use_instead():
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    ends = [cell.source for cell in cells if cell.cell_type == "markdown" and cell.source.startswith("*Instead:*")]
    assert len(ends) == STARTS


def test_the_matlab_file_has_matlabs_layout(tmp_path):
    with h5py.File(own_matrices.matlab_file(tmp_path, antennas=8, samples=5)) as file:
        f, H = file["f"], file["H"]
        assert (f.shape, H.shape) == ((1, 5), (5, 4, 8))  # in MATLAB 5 x 1 and 8 x 4 x 5
        assert H.dtype.names == ("real", "imag")
        assert H.attrs["MATLAB_class"] == b"double"


def test_the_touchstone_file_is_a_passive_reciprocal_network(tmp_path):
    network = skrf.Network(own_matrices.touchstone_file(tmp_path, samples=21))
    assert network.s.shape == (21, 4, 4)
    assert network.f[[0, -1]] == pytest.approx([1e9, 2e9])
    assert network.is_reciprocal()
    assert network.is_passive()


def test_vector_fitting_gives_the_inverse(tmp_path):
    network = skrf.Network(own_matrices.touchstone_file(tmp_path, samples=101))
    loads = np.diag([0.9, 0.5, -0.5, 0.2])
    found = own_matrices.vector_fitted(network, loads)(torch.from_numpy(network.f[::7] / 1e9)[:, None])
    exact = np.linalg.inv(np.eye(4) - network.s[::7] @ loads)
    # Twice as many poles as the filter has leave the tolerance of the fit, not that of rounding.
    np.testing.assert_allclose(found.numpy(), exact, atol=1e-4 * abs(exact).max())


@pytest.mark.parametrize("width", [3, 6])
def test_the_ribbon_has_the_bands_of_the_formula(width):
    H0, H1 = own_matrices.ribbon(width)
    angles = np.arange(1, width + 1) * np.pi / (width + 1)
    for k in (0.0, 0.7, 3.0):
        H = H0 + np.exp(1j * k) * H1 + np.exp(-1j * k) * H1.T
        squares = 1 + 4 * np.cos(angles) ** 2 + 4 * np.cos(angles) * np.cos(k / 2)
        expected = np.sort(np.concatenate([-np.sqrt(squares), np.sqrt(squares)]))
        np.testing.assert_allclose(np.linalg.eigvalsh(H), expected, atol=1e-12)


def test_the_membrane_has_the_resonances_of_the_formula():
    K, C, M = (x.toarray() for x in own_matrices.membrane(8))
    frequencies = np.sqrt(scipy.linalg.eigvalsh(K, M)[:3])
    expected = np.pi * np.sqrt([1 / 4 + 1, 4 / 4 + 1, 9 / 4 + 1])
    # A side of h = 1/8: the frequency of a wave q of bilinear elements is too high by (q h)^2 / 24, twice in 0.7 %.
    np.testing.assert_allclose(frequencies, expected, rtol=0.015)
    np.testing.assert_allclose(C, 1e-3 * K + 0.04 * M)


def test_the_kernel_is_a_covariance():
    K = own_matrices.kernel(20)
    for scale in (0.1, 1.0):
        np.testing.assert_allclose(np.diag(K(scale)), 1.01)
        assert np.linalg.eigvalsh(K(scale))[0] > 0
    assert (K(1.0) >= K(0.1)).all()


def test_the_figure_of_the_bands_says_how_many_there_are():
    arrays = {"bands_k": np.arange(3.0)} | dict.fromkeys(("bands_exact", "bands_followed"), np.ones((3, 12)))
    figures.style()
    axes = own_matrices.bands(provenance.Record("your_own_matrices", "cpu", "cpu", 0, arrays=arrays))
    assert axes.get_title().startswith("12 bands")
    assert figures.faults(axes.figure) == []
    figures.plt.close(axes.figure)


@pytest.mark.parametrize(("loop", "time"), [(3e-3, 0.5), (1.25e-3, 0.8)])
def test_ways_are_weighed_by_solves_error_and_time(monkeypatch, loop, time):
    """In exact solutions by the faster of the library's batch and a NumPy loop."""
    problem = nm.Problem(nm.families.trigonometric(4, shift=3, dtype=torch.float64), nm.Inverse())
    peer = nm.peers.chebyshev(problem, 8)
    # Seconds of all exact values, and of the peer's.
    each = {"exact": 2e-3, own_matrices.LOOP: loop, "peer": 1e-3}
    timings = benchmark.Timings({name: [x * own_matrices.FRESH] * 3 for name, x in each.items()}, {"refused": ""})
    monkeypatch.setattr(benchmark, "compare", lambda calls, **options: timings)
    record = provenance.Record("x", profile="smoke", device="cpu", seed=0)
    table = own_matrices.weigh(record, "case", problem, {"peer": peer})
    (found,) = record.numbers["case"]["ways"].values()
    p = problem.family.box.uniform(own_matrices.FRESH, torch.Generator().manual_seed(0))
    assert found["error"] == float(problem.error(p, peer(p)).max())
    whole = {name: x * own_matrices.FRESH for name, x in each.items()}
    quicker = min(whole["exact"], whole[own_matrices.LOOP])
    assert (found["solves"], found["time"]) == (8, (whole["peer"] / quicker,) * 3)
    assert found["time"].median == pytest.approx(time)
    assert found["pays"].median == pytest.approx(peer.seconds / (min(loop, 2e-3) - 1e-3))
    assert record.numbers["case"]["conditions"]["exact"] == ("exact" if loop > 2e-3 else own_matrices.LOOP)
    assert table.rows[0][:2] == ["peer", "8"]


def test_where_times_are_refused_the_last_good_ones_are_shown(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "neumatc"\n')
    monkeypatch.setattr(provenance, "root", lambda: tmp_path)
    problem = nm.Problem(nm.families.trigonometric(4, shift=3, dtype=torch.float64), nm.Inverse())
    peer = nm.peers.chebyshev(problem, 8)

    def table(seconds, **conditions):
        each = {"exact": seconds, own_matrices.LOOP: 2 * seconds, "peer": seconds / 2}
        timings = benchmark.Timings({name: [x] * 3 for name, x in each.items()}, conditions)
        monkeypatch.setattr(benchmark, "compare", lambda calls, **options: timings)
        record = provenance.Record("x", profile="cpu", device="cpu", seed=0)
        found = own_matrices.weigh(record, "case", problem, {"peer": peer})
        record.save()
        return found

    good = table(1.0, refused="")
    last_good.keep("x")
    refused = table(1.0, refused="other work took 50%")
    assert good.rows == refused.rows and good.rows[0][3] == "0.5"


@pytest.mark.parametrize(
    "operation", [nm.Inverse(), nm.LMMSE(noise=0.5), nm.Eigh(), nm.Cholesky(), nm.Solve()], ids=str
)
def test_the_numpy_loop_gives_what_the_library_gives(operation):
    general = nm.families.trigonometric(4, shift=3, dtype=torch.float64)
    family = nm.ParametricMatrix(lambda p: general(p) @ general(p).mH, 0.0, 1.0)
    family = nm.families.beside(family, torch.ones(4, 1, dtype=torch.float64)) if operation == nm.Solve() else family
    problem, p = nm.Problem(family, operation), torch.linspace(0, 1, 5, dtype=torch.float64)[:, None]
    for i, own in enumerate(own_matrices.one_by_one(problem, p)):
        own = own[0] if isinstance(operation, nm.Eigh) else own
        exact = problem.exact(p[i : i + 1]).value
        exact = exact.eigenvalues.sort().values if isinstance(operation, nm.Eigh) else exact
        np.testing.assert_allclose(own, exact[0], rtol=1e-8, atol=1e-8)


def test_the_text_says_where_the_numpy_loop_is_the_faster_one(glued):
    numbers = compared((20.0, 20.0, 20.0))
    glue_all(numbers)
    assert glued["om-loops"] == "the batch everywhere"
    numbers["kernel"]["conditions"] = numbers["kernel"]["conditions"] | {"exact": own_matrices.LOOP}
    glue_all(numbers)
    assert glued["om-loops"] == "the loop for the kernel matrix"


def vibrating(matrices):
    """The deflection under a uniform load, and that load."""
    K, C, M = matrices
    load = np.ones((K.shape[0], 1))
    stiffness = nm.ParametricMatrix(lambda w: K + 1j * w * C - w**2 * M, 2.0, 12.0, batched=False)
    return nm.Problem(nm.families.beside(stiffness, load), nm.Solve()), load


def test_what_is_projected_once_gives_the_solution():
    matrices = own_matrices.membrane(4)
    problem, load = vibrating(matrices)
    solve = own_matrices.projected(problem, 12, matrices, load)
    p = torch.linspace(2, 12, 40, dtype=torch.float64)[:, None]
    assert solve.exact_solves == 12
    # Seven modes of 21 unknowns lie in the range of frequencies; the others are nearly static there.
    assert problem.error(p, solve(p)).max() < 1e-3


def test_modes_are_exact_with_proportional_damping_and_refused_with_other():
    K, C, M = matrices = own_matrices.membrane(4)
    problem, load = vibrating(matrices)
    solve = own_matrices.modes(matrices, load)
    p = torch.linspace(2, 12, 40, dtype=torch.float64)[:, None]
    assert solve.exact_solves == 0 and solve.seconds > 0
    assert problem.error(p, solve(p)).max() < 1e-12
    C = C.tolil()
    C[0, 0] += 0.1  # a damper at one place
    with pytest.raises(ValueError, match="does not couple the modes.*take `complex_modes`"):
        own_matrices.modes((K, C.tocsr(), M), load)
    other, load = vibrating((K, C.tocsr(), M))
    projected = own_matrices.projected(other, 12, (K, C.tocsr(), M), load)
    assert other.error(p, solve(p)).max() > other.error(p, projected(p)).max()
    assert own_matrices.MODES == front.MODES


@pytest.mark.parametrize("key", ["error", "solves"])
def test_a_map_that_is_as_good_as_aaa_on_the_membrane_stops_the_page(key):
    ways = {"this map": {"error": 4e-6, "solves": 23}, "AAA": {"error": 8e-8, "solves": 23}}
    record = provenance.Record("your_own_matrices", profile="cpu", device="cpu", seed=0)
    record.numbers["membrane"] = {"ways": ways}
    own_matrices.check(record)
    ways["AAA"][key] *= 100
    with pytest.raises(AssertionError):
        own_matrices.check(record)


def test_complex_modes_are_exact_whatever_damps():
    K, C, M = own_matrices.membrane(6)
    dampers = C.tolil()
    for i in range(0, K.shape[0], K.shape[0] // 8):
        dampers[i, i] += 0.1
    p = torch.linspace(2, 12, 40, dtype=torch.float64)[:, None]
    for damping in (C, dampers.tocsr()):
        matrices = K, damping, M
        problem, load = vibrating(matrices)
        solve = own_matrices.complex_modes(matrices, load)
        assert solve.exact_solves == 0 and solve.seconds > 0
        assert problem.error(p, solve(p)).max() < 1e-11


WAYS = {
    "numpy": ("Chebyshev interpolation",),
    "matlab": ("Chebyshev interpolation", "cubic spline"),
    "touchstone": ("vector fitting, then solving",),
    "bands": (),
    "membrane": ("reduced basis", "reduced basis, projected once", "AAA", own_matrices.MODES, "sparse solves"),
    "kernel": ("cubic spline",),
}


def compared(ratio, refused=""):
    """Numbers of a record whose ways have the same times, and a spline whose error is above the tolerance."""
    date = "2026-11-30T00:00:00+00:00"
    conditions = {"refused": refused, "date": date, "rounds": 5, "threads": 2, "processor": "AMD", "exact": "exact"}
    conditions |= {"load_before": 0.1, "load_during": 0.1}
    times = dict.fromkeys(("time", "over_first", "pays", "pays_sparse"), ratio)

    def ways(names):
        errors = {name: 3e-3 if name == "cubic spline" else 5e-4 for name in ("this map", *names)}
        own = {"solves": 20, "above": 0, "kept": 300} | times
        return {name: own | {"error": error} for name, error in errors.items()}

    sizes = {"shape": [4, 4], "samples": 9, "tol": 1e-3, "certainty": "bound", "conditions": conditions}
    return {name: sizes | {"ways": ways(names)} for name, names in WAYS.items()}


@pytest.fixture
def glued(monkeypatch):
    found = {}
    monkeypatch.setattr(own_matrices, "glue", found.__setitem__)
    return found


def glue_all(numbers):
    own_matrices.glue_all(provenance.Record("your_own_matrices", "smoke", "cpu", 0, numbers=numbers))


def test_ways_pay_and_those_above_the_tolerance_are_named(glued):
    numbers = compared((20.0, 20.0, 20.0))
    numbers["matlab"]["ways"]["Chebyshev interpolation"] |= {"error": 4e-4, "pays": (9.0, 9.0, 9.0), "solves": 9}
    numbers["membrane"]["ways"]["AAA"] |= {"error": 6e-4, "pays_sparse": (30.0, 30.0, 30.0)}
    glue_all(numbers)
    missed = " The largest error of a cubic spline is above the tolerance."
    assert glued["om-matlab-pays"] == (
        "The map pays from 20 values on, Chebyshev interpolation pays from 9.0 values on, a cubic spline pays from 20 "
        "values on." + missed
    )
    assert glued["om-kernel-pays"].endswith(missed) and "above" not in glued["om-membrane-pays"]
    assert glued["om-membrane-pays"].endswith(
        "one that is projected in advance pays from 20 values on, AAA pays from 20 values on, a sum of modes pays from "
        "20 values on."
    )
    assert glued["om-matlab-beside"] == "Here Chebyshev interpolation is more accurate than the map and pays earlier."
    assert glued["om-membrane-beside"] == "Here AAA is less accurate than the map."
    assert glued["om-kernel-beside"] == "Here a cubic spline is less accurate than the map."
    assert glued["om-membrane-sparse"].endswith("AAA pays from 30 values on, a sum of modes from 20 values on.")
    assert glued["om-membrane-modes-times"] == "A value of the modes takes 20 exact solutions."
    assert (glued["om-matlab-other"], glued["om-matlab-second"], glued["om-membrane-aaa"]) == (4e-4, 3e-3, 6e-4)
    assert glued["om-above"] == "here it is nowhere"


def test_it_is_said_where_the_error_is_above_the_tolerance_and_which_values_a_bound_keeps(glued):
    numbers = compared((20.0, 20.0, 20.0))
    numbers["kernel"]["ways"]["this map"] |= {"above": 21, "kept": 279}
    numbers["touchstone"]["ways"]["this map"] |= {"above": 3}
    glue_all(numbers)
    assert glued["om-above"] == (
        "it is for the filter (at 3 of the parameters) and the kernel matrix (at 21 of the parameters)"
    )
    assert glued["om-kernel-checked"] == (
        "The bound can be taken of any values: it is at most the tolerance for 279 of 300 values of the map, and 300 "
        "of a cubic spline."
    )


def test_what_is_stated_of_values_is_what_certify_states():
    family = nm.ParametricMatrix(own_matrices.kernel(20), 0.05, 2.0, scale="log", batched=False)
    problem = nm.Problem(family, nm.Cholesky())
    surrogate = nm.fit(problem, tol=1e-3, progress=False)
    p = family.box.uniform(40, torch.Generator().manual_seed(1))
    matrices = problem.operation.admitted(problem.family(p))
    stated = own_matrices.stated(problem, surrogate(p), *matrices)
    certified = nm.certify(surrogate, problem, p, rtol=1.0)
    assert certified.accepted.all() and torch.allclose(stated, certified.bound, rtol=1e-9, atol=0)
    assert (problem.error(p, surrogate(p)) <= stated).all()


def test_what_the_clock_does_not_settle_is_a_limit_in_text_and_table(glued):
    numbers = compared((20.0, 20.0, 20.0))
    numbers["membrane"]["ways"]["this map"]["pays"] = (190.0, 200.0, 210.0)
    numbers["membrane"]["ways"]["AAA"] |= {"error": 4e-4, "pays": (18.0, 19.0, 19.5)}
    glue_all(numbers)
    assert "AAA pays below 20 values (the clock settles no more), a sum" in glued["om-membrane-pays"]
    assert glued["om-membrane-beside"] == "Here AAA is more accurate than the map and pays earlier."
    assert texts.paid(texts.settled_of(numbers["membrane"]["ways"]["AAA"])) == "below 20: not settled"


def test_ways_without_times_have_errors_and_no_verdict_on_time(glued):
    numbers = compared((math.nan,) * 3, "other work took 50%")
    glue_all(numbers)
    missed = " The largest error of a cubic spline is above the tolerance."
    assert glued["om-matlab-pays"] == glued["om-kernel-pays"] == texts.UNTOLD + missed
    assert glued["om-membrane-sparse"] == glued["om-membrane-modes-times"] == texts.UNTOLD
    assert glued["om-kernel-beside"] == "Here a cubic spline is less accurate than the map."


def test_new_ways_are_untimed_where_those_kept_from_before_have_none(glued):
    numbers = compared((20.0, 20.0, 20.0))
    numbers["membrane"]["ways"][own_matrices.MODES] |= dict.fromkeys(("time", "pays", "pays_sparse"), (math.nan,) * 3)
    glue_all(numbers)
    assert glued["om-membrane-pays"].endswith(" Times of a sum of modes varied too much.")
    assert glued["om-membrane-sparse"].startswith("A sparse solve takes 20 of one. Beside it the map pays from 20")
    assert glued["om-membrane-sparse"].endswith(texts.UNTOLD)


def test_the_text_names_what_is_glued(glued):
    glue_all(compared((20.0, 20.0, 20.0)))
    text = "\n".join(c.source for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.cell_type == "markdown")
    assert set(re.findall(r"`(om-[a-z-]+)", text)) <= set(glued)
