"""Surrogates outside Python: ONNX models, MATLAB files and C headers give what the surrogate gives."""

import ctypes
import functools
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from conftest import (
    assert_raises,
    easy,
    factors_of,
    gaussian,
    generator,
    in_pieces,
    pieced,
    random_surrogate,
    rational,
    real,
    trained,
)

import neumatc as nm
from neumatc.export.plain import described

onnx = pytest.importorskip("onnx", reason='needs onnx: pip install "neumatc[export]"')
onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
PAGE = Path(__file__).parents[1] / "book" / "elsewhere.md"
# What is promised, relative to the largest number; more where a value is a small sum of large terms.
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


def hermitian(operation, dtype):
    family = easy(operation, dtype).family
    return nm.Problem(nm.ParametricMatrix(lambda p: family(p) + family(p).mH, 0.0, 1.0), operation)


def smooth(dtype):
    """A function of x (N, d), with matrices (N, 3, 3)."""
    turn = 0.3j if dtype.is_complex else 0.3

    def function(x):
        return torch.exp(turn * x.sum(dim=1)[:, None, None] * torch.arange(1.0, 10.0).view(3, 3)).to(dtype)

    return function


def axes(dtype, **settings):
    """A fit over a logarithmic, a periodic and a linear axis."""
    lower, upper = torch.tensor([[1e-3, 0, 0], [1e3, 2 * torch.pi, 1]], dtype=torch.float64).to(real(dtype))

    def fn(p):
        rows = torch.stack([0.1 * p[:, 0].log(), p[:, 1].sin(), p[:, 2]], dim=1)
        return 4 * torch.eye(3, dtype=dtype) + rows[:, None, :]

    scales = {"scale": ["log", "linear", "linear"], "names": ["a", "φ", 'c "/*'], "units": ["Hz", "", "m"]}
    family = nm.ParametricMatrix(fn, lower, upper, periodic=[False, bool("rank" in settings), False], **scales)
    return nm.fit(nm.Problem(family, nm.Inverse()), progress=False, **settings)


def analytic(dtype):
    """A sparse polynomial of three parameters."""
    ones = torch.ones(3, dtype=real(dtype))
    family = nm.ParametricMatrix(
        lambda p: (4 * torch.eye(2) + p[:, :1, None] * p[:, None, 1:]).to(dtype), 0 * ones, ones
    )
    return nm.fit(nm.Problem(family, nm.Inverse()), tol=1e-5, progress=False)


def delayed(dtype):
    """Filters with phases that are put back; complex only."""
    complex_dtype = dtype if dtype.is_complex else {torch.float32: torch.complex64}.get(dtype, torch.complex128)
    delays = torch.linspace(0, 1e-7, 4, dtype=real(dtype))[None] + 3e-6
    channel = nm.wireless.Channel(gaussian(1, 4, 4, 2, dtype=complex_dtype), delays, 0.0, 1e8)
    return nm.fit(nm.Problem(channel, nm.LMMSE(noise=0.1)), tol=1e-2, progress=False)


def sampled(dtype):
    """Many pieces, each of the samples around it."""
    x = np.linspace(0, 1, 80)
    A = np.array([np.eye(2) * (2 + t) + 0.1 * np.sin(20 * t) for t in x])
    family = nm.families.from_samples(x.astype(str(real(dtype))[6:]), torch.from_numpy(A).to(dtype))
    return nm.fit(nm.Problem(family, nm.Inverse()), tol=1e-3, progress=False)


def held(dtype):
    """A map of two parameters that holds one of them."""
    family = nm.ParametricMatrix(
        lambda p: ((4 + 1e-5 * p[:, 1:, None]) * torch.eye(2) + p[:, :1, None].sin()).to(dtype), [0.0] * 2, [1.0] * 2
    )
    surrogate = nm.fit(nm.Problem(family, nm.Inverse()), tol=1e-3, progress=False)
    assert len(surrogate.pieces[0].nodes[1]) == 1
    return surrogate


def unsorted(operation, dtype, extra=0):
    """A random map, whose values are in any order and of any sign, with columns beyond those wanted."""
    k = (operation.rank or 4) + extra
    shapes = [(4, k), (k,), (k, 4)] if isinstance(operation, nm.SVD) else [(k,), (4, k)]
    return random_surrogate(operation, 4, 4, dtype, shapes=shapes)


def tangled(operation, dtype):
    """Random maps with a Hermitian matrix, whose values are apart, in the place of the values."""
    shapes = [(4, 3), (3, 3), (3, 4)] if isinstance(operation, nm.SVD) else [(3, 3), (4, 3)]
    surrogate = random_surrogate(operation, 4, 4, dtype, shapes=shapes)
    m = surrogate.maps[operation.powers.index(1)]
    constant = m.weights["bias_out"].clone()
    constant[0] = 1
    core = 0.1 * m.core
    core[0] = torch.diag(torch.tensor([-3.0, 1.0, 2.0]))
    rows = m.weights["weight_out"].clone()
    rows[0] = 0
    maps = list(surrogate.maps)
    maps[operation.powers.index(1)] = m.with_(core=core, weights=m.weights | {"weight_out": rows, "bias_out": constant})
    return nm.Surrogate(operation, (4, 4), maps, surrogate.box, surrogate.report)


def channel_vectors(dtype):
    """Singular vectors of a channel, whose triplets nearly meet."""
    if not dtype.is_complex:
        return fitted(nm.SVD(gauge="subspace", rank=2))(dtype)
    delays = torch.linspace(0, 2e-8, 4, dtype=real(dtype))[None]
    channel = nm.wireless.Channel(gaussian(1, 4, 4, 2, dtype=dtype), delays, 0.0, 1e8)
    return nm.fit(nm.Problem(channel, nm.SVD(rank=1)), tol=1e-2, progress=False)


def cut(d, cuts=3):
    return lambda dtype: in_pieces(smooth(dtype), d, dtype, cuts=cuts)


def fitted(operation, problem=easy, **settings):
    return lambda dtype: nm.fit(problem(operation, dtype), progress=False, **({"tol": 1e-4} | settings))


MAKERS = {
    **{f"{d} parameters": cut(d) for d in (1, 2, 3)},
    "many pieces": cut(1, cuts=40),
    "rational": lambda dtype: rational(False, dtype=dtype),
    "complex weights": lambda dtype: rational(True, dtype=dtype) if dtype.is_complex else rational(False, dtype=dtype),
    "sparse": analytic,
    "log axis": lambda dtype: axes(dtype, tol=1e-2),
    "periodic axis": lambda dtype: axes(dtype, rank=9),
    "samples": sampled,
    "held axis": held,
    "closed form": fitted(nm.Inverse(), tol=None, rank=6),
    "two layers": lambda dtype: random_surrogate(nm.Inverse(), 3, 3, dtype, d=2),
    "trained": lambda dtype: trained(easy(nm.Inverse(), dtype)),
    "delays": delayed,
    "SVD": fitted(nm.SVD()),
    "block of several columns": lambda dtype: tangled(nm.SVD(rank=2), dtype),
    "block of eigenvectors": lambda dtype: tangled(nm.Eigh(rank=2, which="lowest"), dtype),
    "block with a guide": channel_vectors,
    "SVD, rank 2": fitted(nm.SVD(rank=2)),
    "SVD, unsorted": lambda dtype: unsorted(nm.SVD(), dtype),
    "SVD, more columns": lambda dtype: unsorted(nm.SVD(rank=2), dtype, extra=2),
    "SVD, one": lambda dtype: unsorted(nm.SVD(rank=1), dtype),
    "Eigh": fitted(nm.Eigh(), hermitian),
    "Eigh, unsorted": lambda dtype: unsorted(nm.Eigh(rank=2), dtype),
    "Eigh, one": lambda dtype: unsorted(nm.Eigh(rank=1), dtype),
    "Eigh, smallest": lambda dtype: unsorted(nm.Eigh(rank=2, which="smallest"), dtype, extra=2),
    "Eigh, lowest": lambda dtype: unsorted(nm.Eigh(rank=2, which="lowest"), dtype, extra=1),
    "Eigh, near": lambda dtype: unsorted(nm.Eigh(rank=2, near=0.3), dtype, extra=2),
    "Eigh, followed": lambda dtype: unsorted(nm.Eigh(rank=2, order="followed"), dtype),
    "QR": fitted(nm.QR()),
    "Cholesky": fitted(nm.Cholesky(), hermitian),
    "Polar": fitted(nm.Polar()),
    "LogDet": fitted(nm.LogDet()),
    "Eig": fitted(nm.Eig()),
    "Subspace": fitted(nm.Subspace(rank=2)),
    "LMMSE": fitted(nm.LMMSE(noise=0.1)),
    "Equaliser": fitted(nm.Equaliser(noise=0.1), tol=1e-2),
    "PseudoInverse": fitted(nm.PseudoInverse()),
    "MatrixFunction": fitted(nm.MatrixFunction("sqrt")),
}


@dataclass
class Case:
    """A surrogate, parameters with the ends of the box, its values there as real arrays, and what rounding may do."""

    surrogate: nm.Surrogate
    p: torch.Tensor
    values: list[np.ndarray]
    limits: list[float]

    @property
    def names(self):
        return [factor.name for factor in self.surrogate.operation.factors(*self.surrogate.shape)]

    @property
    def paired(self):
        return [dtype.is_complex for dtype in self.surrogate.dtypes]

    def assert_same(self, found, rows=slice(None)):
        for got, value, limit in zip(found, self.values, self.limits, strict=True):
            assert got.shape == value[rows].shape and got.dtype == value.dtype
            assert np.abs(got - value[rows]).max() <= limit


def reals(value):
    return torch.view_as_real(value.resolve_conj()).numpy() if value.is_complex() else value.numpy()


def apart(surrogate, x):
    """How much eigenvectors of blocks magnify rounding: the norm over the least gap."""
    for m in surrogate.maps[:3]:
        if m.name in ("S", "eigenvalues") and len(m.shape) == 2:
            M = m(x)
            s = torch.linalg.eigvalsh((M + M.mH) / 2).double()
            return 1 + float((s.abs().amax(dim=1) / s.diff(dim=1).amin(dim=1)).max())
    return 1.0


@functools.cache
def case(name, dtype):
    surrogate = MAKERS[name](dtype)
    p = torch.cat([surrogate.box.uniform(20, generator(5)), surrogate.lower[None], surrogate.upper[None]]).double()
    values = [reals(value) for value in factors_of(surrogate(p))]
    x, limits = surrogate.box.cube(p), []
    for m, value in zip(surrogate.maps, values):
        own = x if m.embedding.precise else x.to(m.numbers.dtype)
        terms = m.embedding(own, m.weights).abs().double() @ m.numbers.abs().double().reshape(len(m.numbers), -1)
        limits.append(TOLERANCE[real(dtype)] * max(float(terms.max()), np.abs(value).max()))
    spread = apart(surrogate, x)
    return Case(surrogate, p, values, [limit * spread for limit in limits])


each_case = pytest.mark.parametrize("name", MAKERS)
# C and MATLAB evaluate all cases in one process each: in both precisions, and of both fields.
BOTH = [torch.float32, torch.complex128]
each_of_both = pytest.mark.parametrize("dtype", BOTH, ids=["float32", "complex128"])
ALL = [(name, dtype) for name in MAKERS for dtype in BOTH]


# ONNX


def session(surrogate, path):
    nm.export_onnx(surrogate, path)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])


@each_case
def test_onnx_gives_what_the_surrogate_gives(name, dtype, tmp_path):
    own = case(name, dtype)
    opened = session(own.surrogate, tmp_path / "a.onnx")
    run, outputs = opened.run, opened.get_outputs()
    assert [(x.name, x.shape) for x in outputs] == [(n, ["B", *v.shape[1:]]) for n, v in zip(own.names, own.values)]
    for rows in (slice(None), slice(1), slice(0)):
        found = run(None, {"p": own.p[rows].numpy()})
        assert all(np.isfinite(x).all() for x in found)
        if len(own.p[rows]):
            own.assert_same(found, rows)
        else:
            assert [x.shape for x in found] == [x[rows].shape for x in own.values]


@each_case
def test_onnx_gives_nan_outside_the_box_and_in_those_rows_only(name, tmp_path):
    own = case(name, torch.float32)
    run, box = session(own.surrogate, tmp_path / "a.onnx").run, own.surrogate.box
    p, axis = own.p[:5].clone(), box.periodic.index(False)
    width = (box.upper - box.lower)[axis]
    p[0, axis], p[1, axis] = box.upper[axis] + width, box.lower[axis] - 0.01 * width
    p[2, axis], p[3, axis] = torch.nan, torch.inf
    for found, value in zip(run(None, {"p": p.numpy()}), own.values):
        assert np.isnan(found[:4]).all()
        assert np.isfinite(found[4]).all()
        assert found.shape[1:] == value.shape[1:]


def test_a_few_units_of_rounding_outside_count_as_inside(tmp_path):
    surrogate = random_surrogate(nm.Inverse(), 2, 2, torch.float32)
    p = np.array([[2.0 + 1e-6], [2.0 + 3e-6]])
    (found,) = session(surrogate, tmp_path / "a.onnx").run(None, {"p": p})
    assert np.isfinite(found[0]).all() and np.isnan(found[1]).all()
    surrogate(p[:1])
    with pytest.raises(ValueError, match="box"):
        surrogate(p[1:])


def test_periodic_axes_are_wrapped(tmp_path):
    own = case("periodic axis", torch.float64)
    p = own.p.clone()
    p[:, 1] += 6 * torch.pi
    found = session(own.surrogate, tmp_path / "a.onnx").run(None, {"p": p.numpy()})
    own.assert_same(found)


def test_the_model_is_valid_and_says_what_it_is(tmp_path):
    own = case("periodic axis", torch.complex64)
    run = session(own.surrogate, tmp_path / "a.onnx")
    model = onnx.load(tmp_path / "a.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    (p,), (X,) = run.get_inputs(), run.get_outputs()
    assert (p.name, p.type, p.shape) == ("p", "tensor(double)", ["B", 3])
    assert (X.name, X.type, X.shape) == ("X", "tensor(float)", ["B", 3, 3, 2])
    told = {key: json.loads(value) for key, value in run.get_modelmeta().custom_metadata_map.items()}
    box, report = own.surrogate.box, own.surrogate.report
    expected = {"parameters": box.names, "units": box.units, "scale": box.scale, "periodic": box.periodic}
    expected |= {"lower": box.lower.tolist(), "upper": box.upper.tolist(), "tol": report.tol, "met": report.met}
    expected |= {"operation": repr(own.surrogate.operation), "neumatc": nm.__version__}
    assert told == json.loads(json.dumps(expected))


def test_three_factors_have_their_names(tmp_path):
    own = case("SVD", torch.float64)
    names = [output.name for output in session(own.surrogate, tmp_path / "a.onnx").get_outputs()]
    assert names == ["U", "S", "Vh"]


def test_many_parameters_at_once(tmp_path):
    own = case("2 parameters", torch.complex128)
    p = own.surrogate.box.uniform(5000, generator(1)).double()
    (found,) = session(own.surrogate, tmp_path / "a.onnx").run(None, {"p": p.numpy()})
    assert np.abs(found - reals(own.surrogate(p))).max() <= own.limits[0]


# C


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """All cases in one library, compiled without a warning."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not compiler:
        pytest.skip("needs a C compiler: gcc or cc")
    folder, lines = tmp_path_factory.mktemp("c"), []
    for i, (name, dtype) in enumerate(ALL):
        own = case(name, dtype)
        nm.save_c(own.surrogate, folder / f"f{i}.h", f"f{i}")
        kind, names = f"f{i}_real", own.names
        outputs = ", ".join(f"{kind} *{name}" for name in names)
        lines += [f'#include "f{i}.h"', f"int run{i}(const double *p, {outputs});"]
        lines += [f"int run{i}(const double *p, {outputs}) {{ return f{i}(p, {', '.join(names)}); }}"]
    (folder / "all.c").write_text("\n".join(lines))
    settings = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "-shared", "-fPIC", "-o", "all.so"]
    result = subprocess.run(
        [compiler, *settings, "all.c", "-lm"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return ctypes.CDLL(folder / "all.so")


def by_c(compiled, name, dtype, p):
    own, function = case(name, dtype), getattr(compiled, f"run{ALL.index((name, dtype))}")
    p = np.ascontiguousarray(p)
    outputs, codes = [np.zeros((len(p), *value.shape[1:]), value.dtype) for value in own.values], []
    for row in range(len(p)):
        addresses = [x[row : row + 1].ctypes.data_as(ctypes.c_void_p) for x in (p, *outputs)]
        codes.append(function(*addresses))
    return codes, outputs


@each_case
@each_of_both
def test_c_gives_what_the_surrogate_gives(name, dtype, compiled):
    own = case(name, dtype)
    codes, found = by_c(compiled, name, dtype, own.p.numpy())
    assert codes == [0] * len(own.p)
    own.assert_same(found)


@each_case
@each_of_both
def test_c_says_what_is_outside_the_box(name, dtype, compiled):
    own = case(name, dtype)
    p, axis = own.p[:3].numpy().copy(), own.surrogate.box.periodic.index(False)
    p[0, axis], p[1, axis] = p[0, axis] + 2 * float(own.surrogate.upper[axis]) + 4, np.nan
    codes, found = by_c(compiled, name, dtype, p)
    assert codes == [1, 1, 0]
    assert all(np.isnan(x[:2]).all() and np.isfinite(x[2]).all() for x in found)


@each_case
@each_of_both
def test_the_evaluator_in_c_is_short(name, dtype, tmp_path):
    nm.save_c(case(name, dtype).surrogate, tmp_path / "a.h")
    text = re.sub(r"static const[^;]*;|/\*.*?\*/", "", (tmp_path / "a.h").read_text(), flags=re.DOTALL)
    ends = any(f"surrogate_{word}(" in text for word in ("sort", "unit", "turn"))
    assert len([line for line in text.splitlines() if line.strip()]) <= (200 if ends else 60)


def test_a_header_that_would_not_fit_on_the_stack_is_refused(tmp_path):
    large = random_surrogate(nm.SVD(), 200, 200, torch.complex64, rank=1)
    assert_raises(ValueError, ["`surrogate`", "stack", "nm.export_onnx"], lambda: nm.save_c(large, tmp_path / "a.h"))
    nm.export_onnx(large, tmp_path / "a.onnx")


def test_a_header_tells_names_and_cannot_be_broken_by_them(tmp_path):
    nm.save_c(case("log axis", torch.float64).surrogate, tmp_path / "a.h")
    comment, rest = (tmp_path / "a.h").read_text().split("*/", 1)
    assert r"\u03c6" in comment and '"Hz"' in comment and '/ *"' in comment and comment.count("/*") == 1
    assert rest.lstrip().startswith("#ifndef")


@pytest.mark.parametrize("name", ["", "2x", "a b", "a-b", "é", "int", "class"])
def test_a_name_that_c_does_not_take_is_refused(name, tmp_path):
    surrogate = case("1 parameters", torch.float64).surrogate
    assert_raises(
        ValueError, ["`name`", "identifier", repr(name)[1:-1]], lambda: nm.save_c(surrogate, tmp_path / "a.h", name)
    )
    assert list(tmp_path.iterdir()) == []


# MATLAB


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


EVALUATE = """
for i = 1:numel(dir('f*.mat'))
  given = load(sprintf('f%d.mat', i)); p = load(sprintf('p%d.mat', i)).p; s = given.surrogate;
  values = cell(numel(s.factors), size(p, 1));
  for row = 1:size(p, 1), [values{:, row}] = neumatc(s, p(row, :)); end
  save('-v6', sprintf('v%d.mat', i), 'values');
  said = 'nothing'; try, neumatc(s, [p(1, :), 0]); catch found, said = found.identifier; end
  assert(strcmp(said, 'neumatc:p'), said);
  outside = 2 * s.upper - s.lower; at = find(~s.periodic, 1);
  for wrong = [NaN, Inf, outside(at)]
    q = p(1, :); q(at) = wrong; said = 'nothing';
    try, neumatc(s, q); catch found, said = found.identifier; end
    assert(strcmp(said, 'neumatc:outside'), said);
  end
end
"""


def by_octave(folder, source, keys):
    """The values of cases, evaluated by lines of the page."""
    program = shutil.which("octave-cli") or shutil.which("octave")
    if not program:
        pytest.skip("needs GNU Octave")
    (folder / "neumatc.m").write_text(source)
    (folder / "evaluate_them.m").write_text(EVALUATE)
    for i, key in enumerate(keys, 1):
        nm.save_mat(case(*key).surrogate, folder / f"f{i}.mat")
        scipy.io.savemat(folder / f"p{i}.mat", {"p": case(*key).p.numpy()})
    command = [program, "--no-gui", "--no-window-system", "--norc", "evaluate_them.m"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return {key: scipy.io.loadmat(folder / f"v{i}.mat")["values"] for i, key in enumerate(keys, 1)}


@pytest.fixture(scope="module")
def octave(tmp_path_factory):
    return by_octave(tmp_path_factory.mktemp("octave"), "\n".join(blocks("matlab")), ALL)


@each_case
@each_of_both
def test_octave_gives_what_the_surrogate_gives(name, dtype, octave):
    assert_octave_gives(case(name, dtype), octave[name, dtype])


# What each case needs besides the first listing, by the tables of the page: of its functions, and of its ending.
BESIDE = {
    "a rational function with complex weights": "complex weights",
    "a sparse polynomial, or the closed form": "sparse|closed form|periodic axis",
    "a trained network": "two layers|trained",
    "phases that are put back, `nm.LogDet`, `nm.Eig`": "delays|LogDet|Eig",
    "`nm.SVD`, `nm.Eigh`": "SVD|SVD, rank 2|Eigh",
    "these with blocks of vectors": "block with a guide",
}


def in_pieces_alone(surrogate):
    """Whether the first listing is enough: pieces or real weights, and nothing that follows."""
    plain = described(surrogate)
    follows = plain.order or plain.unit >= 0 or any(table.phases for table in plain.factors)
    return not follows and all(b.kind == "pieces" and "imaginary" not in b.arrays for b in plain.bases)


def test_the_first_listing_is_enough_for_maps_in_pieces(tmp_path):
    keys = [key for key in ALL if in_pieces_alone(case(*key).surrogate)]
    assert {"1 parameters", "3 parameters", "many pieces", "rational", "QR", "LMMSE"} <= {name for name, _ in keys}
    for key, values in by_octave(tmp_path, blocks("matlab")[0], keys).items():
        assert_octave_gives(case(*key), values)


def test_the_evaluator_of_pieces_in_matlab_is_short():
    lines = blocks("matlab")[0].splitlines()
    assert lines[0] == "function varargout = neumatc(s, p)" and sum("function" in line for line in lines) == 1
    assert len(lines) <= 20 and max(map(len, lines)) <= 120


def test_the_page_counts_the_lines_of_its_functions():
    said = re.findall(r"^\| `(\w+)` \| (\d+) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    texts = re.split(r"^(?=function )", "\n".join(blocks("matlab")), flags=re.MULTILINE)[1:]
    own = {re.match(r"function .*?(\w+)\(", text)[1]: len(text.strip().splitlines()) for text in texts}
    assert {name: int(lines) for name, lines in said} == own


def assert_octave_gives(own, values):
    found = []
    for rows, value, paired in zip(values, own.values, own.paired):
        x = np.stack(list(rows))
        if paired:
            x = np.stack([x.real, x.imag], axis=-1)
        assert x.dtype == value.dtype
        found.append(x.reshape(value.shape))
    own.assert_same(found)


def test_the_file_of_matlab_holds_plain_arrays(tmp_path):
    own = case("log axis", torch.complex64)
    nm.save_mat(own.surrogate, tmp_path / "a.mat")
    found = scipy.io.loadmat(tmp_path / "a.mat", simplify_cells=True)["surrogate"]
    assert found["lower"].tolist() == own.surrogate.lower.double().tolist()
    assert found["log"].tolist() == [1, 0, 0]
    assert list(found["told"]["parameters"]) == list(own.surrogate.box.names)
    latent = np.atleast_1d(found["maps"])[0]["latent"]
    expected = own.surrogate.maps[0].latent.numpy()
    assert np.array_equal(latent.reshape(3, 3, -1, order="F"), expected)


def test_positions_in_narrow_pieces_are_those_of_the_surrogate(tmp_path):
    """Where the middle of a piece is rounded, by much of its width."""
    surrogate = case("many pieces", torch.float64).surrogate
    nm.save_mat(surrogate, tmp_path / "a.mat")
    found = scipy.io.loadmat(tmp_path / "a.mat", simplify_cells=True)["surrogate"]["bases"]
    own = described(surrogate).bases[0].arrays
    low, high = own["low"][:, 0], own["high"][:, 0]
    assert (high - low).min() < 1e-5
    x = low + (high - low) * np.linspace(0, 1, 9)[:, None]
    t = np.sin(found["rate"] * (x - found["middle"]) - found["shift"]) / np.sin(found["rate"] * (high - low) / 2)
    assert np.abs(t - ((x - low) - (high - x)) / (high - low)).max() < 1e-15


# Bad input, and files


EXPORTS = {"onnx": nm.export_onnx, "mat": nm.save_mat, "h": nm.save_c}
each_export = pytest.mark.parametrize("export", EXPORTS.values(), ids=EXPORTS)


class Finished(nm.Inverse):
    def finish(self, fitted, out):
        out[0].mul_(2)


class Named(nm.Inverse):
    def factors(self, m, n):
        return (nm.Factor("p", (m, n)),)


class Own(nm.Chebyshev):
    def univariate(self, x, axis=0):
        return torch.stack([x**k for k in range(1, self.degree + 1)])


@each_export
def test_what_cannot_leave_is_named(export, tmp_path):
    path = tmp_path / "a"
    for operation, n in ((nm.SVD(rank=2, order="followed"), 2), (nm.SVD(rank=13), 13)):
        block = random_surrogate(operation, 13, 13, torch.complex64, shapes=[(13, n), (n, n), (n, 13)])
        assert_raises(ValueError, ["`surrogate`", "block", "12", "nm.Subspace"], lambda own=block: export(own, path))
    finished = random_surrogate(Finished(), 3, 3, torch.float64)
    assert_raises(ValueError, ["`surrogate`", "finish", "Finished()"], lambda: export(finished, path))
    named = random_surrogate(Named(), 3, 3, torch.float64)
    assert_raises(ValueError, ["`surrogate`", "plain names", "['p']", "rename"], lambda: export(named, path))
    own = nm.fit(easy(nm.Inverse()), rank=3, method=nm.ClosedForm(embedding=Own(4)), progress=False)
    assert_raises(ValueError, ["`surrogate`", "embedding", "Own", "nm.Chebyshev"], lambda: export(own, path))
    assert_raises(TypeError, ["`surrogate`", "nm.Surrogate"], lambda: export(torch.zeros(3), path))
    broken = random_surrogate(nm.Inverse(), 3, 3, torch.float64)
    broken.maps[0].numbers[0, 0, 0] = torch.nan
    assert_raises(ValueError, ["`surrogate`", "finite"], lambda: export(broken, path))
    assert list(tmp_path.iterdir()) == []


@each_export
def test_a_file_is_there_as_a_whole_or_not_at_all(export, tmp_path, monkeypatch):
    surrogate = random_surrogate(nm.Inverse(), 3, 3, torch.float64)
    assert_raises(FileNotFoundError, ["`path`", "make its folder"], lambda: export(surrogate, tmp_path / "no" / "a"))
    assert_raises(IsADirectoryError, ["`path`", "folder"], lambda: export(surrogate, tmp_path))
    path = tmp_path / "a"
    export(surrogate, path)
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert_raises(
        OSError, ["`path`", "No space left"], lambda: export(random_surrogate(nm.QR(), 2, 2, torch.float32), path)
    )
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@each_export
def test_a_surrogate_is_left_as_it_is_and_gives_the_same_file(export, tmp_path):
    surrogate = case("QR", torch.complex64).surrogate
    before = {name: tensor.clone() for name, tensor in surrogate.state_dict().items()}
    export(surrogate, tmp_path / "a")
    export(surrogate, tmp_path / "b")
    assert all(torch.equal(tensor, before[name]) for name, tensor in surrogate.state_dict().items())
    if export is not nm.save_mat:  # which has a date in it
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_without_onnx_the_remedy_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    surrogate = random_surrogate(nm.Inverse(), 3, 3, torch.float64)
    assert_raises(
        ImportError, ["onnx", 'pip install "neumatc[export]"'], lambda: nm.export_onnx(surrogate, tmp_path / "a")
    )


def test_factors_in_the_same_pieces_share_them():
    assert len(described(pieced(easy(nm.SVD(), torch.float64))).bases) == 1
    assert len(described(random_surrogate(nm.SVD(), 3, 3, torch.float64)).bases) == 3


def test_the_page_runs(tmp_path, monkeypatch):
    """Its examples, one after the other; the program in C too, where there is a compiler."""
    monkeypatch.chdir(tmp_path)
    space = {}
    for source in blocks("python"):
        exec(source, space)
    assert np.allclose(space["X"], space["surrogate"](np.array([0.25, 0.5])))
    assert (space["names"], space["units"]) == (["p"], [""])
    if shutil.which("gcc") or shutil.which("cc"):
        (source,) = blocks("c")
        assert np.allclose(printed(tmp_path, source), space["X"][0].ravel(), rtol=1e-4)


def printed(folder, source):
    """Compile a program by the command that the page tells, run it, and return the numbers that it prints."""
    (command,) = re.findall(r"`cc (-[^`]*)`", PAGE.read_text("utf-8"))
    (folder / "main.c").write_text(source)
    subprocess.run([shutil.which("gcc") or shutil.which("cc"), *command.split()], cwd=folder, check=True)
    result = subprocess.run([folder / "main"], capture_output=True, text=True, check=True)
    return [float(x) for x in result.stdout.split()]


@pytest.mark.skipif(not (shutil.which("gcc") or shutil.which("cc")), reason="needs a C compiler: gcc or cc")
def test_the_command_of_the_page_links_a_logarithmic_axis(tmp_path):
    family = nm.ParametricMatrix(lambda x: np.diag([1.0, 2 + np.log(x)]) + 0.1, 1.0, 1e3, scale="log", batched=False)
    surrogate = nm.fit(nm.Problem(family, nm.Inverse()), tol=1e-6, progress=False)
    nm.save_c(surrogate, tmp_path / "inverse.h", name="inverse")
    assert "log(" in (tmp_path / "inverse.h").read_text()
    (source,) = blocks("c")
    assert np.allclose(printed(tmp_path, source.replace("p = 0.25", "p = 40.0")), surrogate(40.0).ravel(), rtol=1e-4)
