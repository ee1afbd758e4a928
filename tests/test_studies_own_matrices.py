"""The chapter *Your own matrices*: files as other programs write them, models against formulas, and ten lines each."""

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
from studies import benchmark, figures, last_good, own_matrices, provenance, runs

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


def test_ways_are_weighed_by_solves_error_and_time(monkeypatch):
    problem = nm.Problem(nm.families.trigonometric(4, shift=3, dtype=torch.float64), nm.Inverse())
    peer = nm.peers.chebyshev(problem, 8)
    # Seconds of all exact values, and of the peer's.
    seconds = {"exact": [2e-3 * own_matrices.FRESH] * 3, "peer": [1e-3 * own_matrices.FRESH] * 3}
    timings = benchmark.Timings(seconds, {"refused": ""})
    monkeypatch.setattr(benchmark, "compare", lambda calls, **options: timings)
    record = provenance.Record("x", profile="smoke", device="cpu", seed=0)
    table = own_matrices.weigh(record, "case", problem, {"peer": peer})
    (found,) = record.numbers["case"]["ways"].values()
    p = problem.family.box.uniform(own_matrices.FRESH, torch.Generator().manual_seed(0))
    assert found["error"] == float(problem.error(p, peer(p)).max())
    assert (found["solves"], found["time"]) == (8, (0.5, 0.5, 0.5))
    assert found["pays"].median == pytest.approx(peer.seconds / 1e-3)
    assert table.rows[0][:2] == ["peer", "8"]


def test_where_times_are_refused_the_last_good_ones_are_shown(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "neumatc"\n')
    monkeypatch.setattr(provenance, "root", lambda: tmp_path)
    problem = nm.Problem(nm.families.trigonometric(4, shift=3, dtype=torch.float64), nm.Inverse())
    peer = nm.peers.chebyshev(problem, 8)

    def table(seconds, **conditions):
        timings = benchmark.Timings({"exact": [seconds] * 3, "peer": [seconds / 2] * 3}, conditions)
        monkeypatch.setattr(benchmark, "compare", lambda calls, **options: timings)
        record = provenance.Record("x", profile="cpu", device="cpu", seed=0)
        found = own_matrices.weigh(record, "case", problem, {"peer": peer})
        record.save()
        return found

    good = table(1.0, refused="")
    last_good.keep("x")
    refused = table(1.0, refused="other work took 50%")
    assert good.rows == refused.rows and good.rows[0][3] == "0.5"


def test_what_is_projected_once_gives_the_solution():
    K, C, M = matrices = own_matrices.membrane(4)
    load = np.ones((K.shape[0], 1))
    stiffness = nm.ParametricMatrix(lambda w: K + 1j * w * C - w**2 * M, 2.0, 12.0, batched=False)
    problem = nm.Problem(nm.families.beside(stiffness, load), nm.Solve())
    solve = own_matrices.projected(problem, 12, matrices, load)
    p = torch.linspace(2, 12, 40, dtype=torch.float64)[:, None]
    assert solve.exact_solves == 12
    # Seven modes of 21 unknowns lie in the range of frequencies; the others are nearly static there.
    assert problem.error(p, solve(p)).max() < 1e-3
