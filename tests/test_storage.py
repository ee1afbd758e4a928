"""Storage: bit-for-bit round trips, and one clear ValueError for every kind of damaged or foreign file."""

import contextlib
import errno
import json
import os
import pickletools
import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import (
    assert_raises,
    factors_of,
    gaussian,
    generator,
    in_pieces,
    parameters,
    random_surrogate,
    rational,
    tensors_of,
    trained,
)

import neumatc as nm
from neumatc import storage
from neumatc.report import Event, Round, StopReason, Unmet


def full_report():
    rounds = [
        Round(5, 0.25, 0.01, 1e-3, float("inf"), [[0.5], [0.25]]),
        Round(0, float("nan"), float("nan"), 1e-3, 0.5, worst=[0.75], exact_solves=4, rank=3),
    ]
    events = [
        Event("crossing", (0, 1), [0.25], 1e-3),
        Event("cut", (2,), [0.5], float("nan")),
        Event("loop", (0, 2), [1.0], 0.1, 3.0),
    ]
    return nm.Report(
        "Method",
        {"steps": 5},
        rank=3,
        seed=7,
        tol=0.1,
        budget=9,
        unmet=[Unmet([0.0], [0.5], "X jumps")],
        stop_reason=StopReason.FAMILY,
        message="é",
        seconds=1.5,
        exact_solves=4,
        residual_evaluations=60,
        singular=[[0.1]],
        collocation=8,
        steps=[5],
        losses=[float("nan")],
        rounds=rounds,
        events=events,
        version="1",
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "surrogate.safetensors"


OPERATIONS = [
    nm.Inverse(),
    nm.SVD(rank=2),
    nm.SVD(),
    nm.Eigh(rank=2),
    nm.Eig(),
    nm.LogDet(),
    nm.LMMSE(noise=0.1),
    nm.MatrixFunction("inverse_sqrt"),
    nm.Projector(rank=2, side="right"),
]


def assert_the_same(loaded, surrogate):
    """Assert equal settings, and equal tensors and values bit for bit."""
    before, after = tensors_of(surrogate), tensors_of(loaded)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        assert after[name].device == tensor.device
        assert torch.equal(after[name], tensor)
    assert (loaded.operation, loaded.shape, loaded.box) == (surrogate.operation, surrogate.shape, surrogate.box)
    assert [m.embedding for m in loaded.maps] == [m.embedding for m in surrogate.maps]
    assert loaded.pieces == surrogate.pieces
    p = surrogate.box.uniform(9, generator())
    for x, y in zip(factors_of(loaded(p)), factors_of(surrogate(p))):
        assert torch.equal(x, y)


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_round_trip_is_bit_for_bit(operation, dtype, device, path):
    surrogate = random_surrogate(operation, 4, 4, dtype, d=2, device=device)
    nm.save(surrogate, path)
    assert_the_same(nm.load(path, device), surrogate)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_pieces_go_round_bit_for_bit(d, dtype, path):
    surrogate = in_pieces(lambda x: gaussian(len(x), 3, 3, dtype=dtype), d, dtype)
    nm.save(surrogate, path)
    assert_the_same(nm.load(path), surrogate)


@pytest.mark.parametrize("is_complex", [False, True])
def test_rational_functions_go_round_bit_for_bit(is_complex, path):
    surrogate = rational(is_complex)
    nm.save(surrogate, path)
    assert_the_same(nm.load(path), surrogate)


def test_the_box_goes_round(path):
    settings = {"scale": ["log", "linear"], "periodic": [False, True], "names": ["t", "angle"], "units": ["s", "rad"]}
    base = random_surrogate(nm.Inverse(), 3, 3, torch.float64, 2)
    box = nm.Box([1e-3, 0.0], [1e3, 6.25], **settings)
    nm.save(nm.Surrogate(base.operation, (3, 3), base.maps, box, base.report), path)
    assert nm.load(path).box == box


def test_the_report_goes_round(path):
    surrogate = random_surrogate(nm.Inverse(), 3, 3, torch.float64)
    surrogate.report = full_report()
    nm.save(surrogate, path)
    loaded = nm.load(path).report
    assert type(loaded.stop_reason) is StopReason
    assert loaded.to_dict() == surrogate.report.to_dict()  # NaN as a word, equal to itself


def test_a_fitted_surrogate_survives(path):
    """Also one whose two bounds are views of one tensor, and one fitted on the float32 default with float64 data."""
    bounds = torch.tensor([[0.0], [0.5]], dtype=torch.float64)
    family = nm.ParametricMatrix(lambda p: torch.eye(3, dtype=torch.float64) * (1 + p[:, :, None]), *bounds)
    surrogate = trained(nm.Problem(family, nm.Inverse()), steps=5)
    nm.save(surrogate, str(path))
    loaded = nm.load(str(path))
    assert loaded.report == surrogate.report
    p = parameters(5) / 2
    assert torch.equal(loaded(p), surrogate(p))


def test_file_is_safetensors_with_json_and_no_pickle(path):
    nm.save(random_surrogate(nm.SVD(rank=2), 4, 3, torch.complex64), path)
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    content = json.loads(header["__metadata__"]["neumatc"])
    assert content["operation"] == {"class": "SVD", "settings": nm.SVD(rank=2).settings()}
    assert content["version"] == 2
    with pytest.raises(ValueError, match="opcode|unpickl"):
        list(pickletools.genops(data))
    assert os.listdir(path.parent) == [path.name]


def test_metadata_is_strict_json(path):
    """NaN and Infinity, which a diverged fit puts in its report, are no JSON: other readers would refuse the file."""
    surrogate = random_surrogate(nm.Inverse(), 3, 3, torch.float32)
    surrogate.report = full_report()
    nm.save(surrogate, path)
    data = path.read_bytes()
    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["neumatc"]

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    json.loads(metadata, parse_constant=refuse)


def rewrite(path, tensors=None, header=None):
    """Write the file again with changed tensors and header; None removes an entry."""
    with safetensors.safe_open(path, framework="pt") as file:
        old = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = json.loads(file.metadata()["neumatc"])
    new = {name: tensor for name, tensor in (old | (tensors or {})).items() if tensor is not None}
    content = {name: value for name, value in (metadata | (header or {})).items() if value is not None}
    content.pop("sha256")
    content["sha256"] = storage.digest(new, content)  # a file that is whole, but wrong
    safetensors.torch.save_file(new, path, {"neumatc": json.dumps(content)})


def turning(operation=None, dtype=torch.complex64, **settings):
    """A random surrogate whose rows and columns turn."""
    base = random_surrogate(operation or nm.LMMSE(noise=0.1), 4, 3, dtype)
    box = nm.Box(base.lower, base.upper, **settings)
    slopes = torch.linspace(-900, 900, 7, dtype=torch.float64)[:, None]
    return nm.Surrogate(base.operation, (4, 3), base.maps, box, base.report, slopes)


def test_turns_go_round(path):
    surrogate = turning()
    nm.save(surrogate, path)
    loaded, p = nm.load(path), parameters(5)
    assert torch.equal(loaded.turns, surrogate.turns) and torch.equal(loaded(p), surrogate(p))
    # Whoever knows nothing of turns must not take the maps for the whole.
    assert b'"version": 3' in path.read_bytes().replace(b"\\", b"")


@pytest.mark.parametrize(
    "tensors",
    [
        {"turns": None},
        {"turns": torch.zeros(6, 1, dtype=torch.float64)},
        {"turns": torch.zeros(7, 2, dtype=torch.float64)},
        {"turns": torch.zeros(7, 1)},
        {"turns": torch.full((7, 1), torch.nan, dtype=torch.float64)},
    ],
    ids=["none", "rows", "columns", "precision", "NaN"],
)
def test_damaged_turns_are_refused(path, tensors):
    nm.save(turning(), path)
    rewrite(path, tensors)
    assert_raises(ValueError, ["`path`", "damaged"], lambda: nm.load(path))


def test_turns_that_cannot_be_are_refused():
    cases = [{"dtype": torch.float32}, {"operation": nm.Subspace(rank=2)}, {"periodic": True}]
    for settings in cases:
        assert_raises(ValueError, ["`turns`"], lambda settings=settings: turning(**settings))


def map_entry(**changes):
    settings = {"layers": 2, "width": 8, "frequency": 3.0}
    entry = {"name": "X", "complex": False, "embedding": {"class": "SinusoidalMLP", "settings": settings}}
    return [entry | changes]


DAMAGES = {  # name: (what to do to the file, words of the message)
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-20]), ["damaged"]),
    "truncated header": (lambda path: path.write_bytes(path.read_bytes()[:100]), ["damaged"]),
    "empty": (lambda path: path.write_bytes(b""), ["damaged"]),
    "text": (lambda path: path.write_text("hello, I am a text file and long enough"), ["damaged or of another kind"]),
    "bit of the length": (lambda path: flip(path, 8 * 3), ["damaged"]),
    "bit of the data": (lambda path: flip(path, -100), ["damaged"]),
    "foreign": (lambda path: safetensors.torch.save_file({"a": torch.ones(2)}, path), ["version 3", "got None"]),
    "foreign metadata": (
        lambda path: safetensors.torch.save_file({"a": torch.ones(2)}, path, {"x": "y"}),
        ["got None"],
    ),
    "newer version": (lambda path: rewrite(path, header={"version": 4}), ["version 3", "got", "version 4", "update"]),
    "no turns": (lambda path: rewrite(path, header={"version": 3}), ["turns", "save"]),
    "other format": (lambda path: rewrite(path, header={"format": "x"}), ["neumatc-surrogate", "got x"]),
    "version as text": (lambda path: rewrite(path, header={"version": "1"}), ["save"]),
    "no operation": (lambda path: rewrite(path, header={"operation": None}), ["operation"]),
    "unknown operation": (
        lambda path: rewrite(path, header={"operation": {"class": "Cube", "settings": {}}}),
        ["'Cube'", "import"],
    ),
    "setting out of range": (
        lambda path: rewrite(path, header={"operation": {"class": "SVD", "settings": {"rank": 0}}}),
        ["rank"],
    ),
    "unknown setting": (
        lambda path: rewrite(path, header={"operation": {"class": "Inverse", "settings": {"a": 1}}}),
        ["save"],
    ),
    "unknown embedding": (
        lambda path: rewrite(path, header={"maps": map_entry(embedding={"class": "Wavelet", "settings": {}})}),
        ["'Wavelet'", "import"],
    ),
    "unknown stop reason": (
        lambda path: rewrite(path, header={"report": full_report().to_dict() | {"stop_reason": "tea"}}),
        ["tea"],
    ),
    "no maps": (lambda path: rewrite(path, header={"maps": []}), ["save"]),
    "too many maps": (lambda path: rewrite(path, {"1.core": torch.ones(3, 4, 4)}, {"maps": map_entry() * 2}), ["save"]),
    "other operation": (
        lambda path: rewrite(path, header={"operation": {"class": "SVD", "settings": {"rank": 2}}}),
        ["save"],
    ),
    "names of another dimension": (lambda path: rewrite(path, header={"box": {"names": ["a", "b"]}}), ["names"]),
    "no core": (lambda path: rewrite(path, {"0.core": None}), ["0.core"]),
    "no weight": (lambda path: rewrite(path, {"0.weights.bias1": None}), ["bias1"]),
    "no bounds": (lambda path: rewrite(path, {"upper": None}), ["upper"]),
    "core of another rank": (lambda path: rewrite(path, {"0.core": torch.ones(2, 4, 4)}), ["rank 2"]),
    "core that is no matrix": (lambda path: rewrite(path, {"0.core": torch.ones(3, 4)}), ["X"]),
    "core that is rectangular": (lambda path: rewrite(path, {"0.core": torch.ones(3, 4, 5)}), ["X"]),
    "core that is a number": (lambda path: rewrite(path, {"0.core": torch.tensor(1.0)}), ["save"]),
    "core of another dtype": (lambda path: rewrite(path, {"0.core": torch.ones(3, 4, 4).double()}), ["save"]),
    "core of integers": (lambda path: rewrite(path, {"0.core": torch.ones(3, 4, 4).int()}), ["save"]),
    "real core said to be complex": (lambda path: rewrite(path, header={"maps": map_entry(complex=True)}), ["save"]),
    "weight of another shape": (lambda path: rewrite(path, {"0.weights.weight2": torch.ones(8, 9)}), ["save"]),
    "bounds of another shape": (lambda path: rewrite(path, {"upper": torch.ones(2) * 2}), ["upper"]),
    "reversed bounds": (lambda path: rewrite(path, {"upper": torch.tensor([-5.0])}), ["upper"]),
}


def flip(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_or_foreign_file_is_a_clear_error(name, path):
    nm.save(random_surrogate(nm.Inverse(), 4, 4, torch.float32), path)
    damage, words = DAMAGES[name]
    damage(path)
    assert_raises(ValueError, ["`path`"], lambda: nm.load(path))
    assert_raises(ValueError, [path.name], lambda: nm.load(path))
    for word in words:
        assert_raises(ValueError, [word], lambda word=word: nm.load(path))


def test_every_flipped_bit_of_the_header_is_an_error_or_harmless(path):
    """A spread of single-bit faults over the whole header: nothing else than a ValueError that names the file."""
    surrogate = random_surrogate(nm.Inverse(), 3, 3, torch.float32)
    nm.save(surrogate, path)
    good = path.read_bytes()
    length = 8 + int.from_bytes(good[:8], "little")
    for bit in range(0, 8 * length, 97):
        flip(path, bit)
        with contextlib.suppress(ValueError):
            loaded = nm.load(path)
            assert loaded.report == surrogate.report
            assert loaded.maps[0].embedding == surrogate.maps[0].embedding
            assert all(torch.equal(x, tensors_of(surrogate)[name]) for name, x in tensors_of(loaded).items())
            path.write_bytes(good)
            continue
        assert_raises(ValueError, [path.name], lambda: nm.load(path))
        path.write_bytes(good)


def test_missing_files_and_folders(path, tmp_path):
    assert_raises(FileNotFoundError, ["`path`", path.name, "nothing"], lambda: nm.load(path))
    with pytest.raises((OSError, ValueError), match=r"(?s)`path`.*(directory|folder)"):
        nm.load(tmp_path)
    assert_raises(TypeError, ["`surrogate`", "nm.Surrogate", "int"], lambda: nm.save(3, path))
    with pytest.raises(OSError, match="nowhere"):
        nm.save(random_surrogate(nm.Inverse(), 3, 3, torch.float32), tmp_path / "nowhere" / "a.safetensors")


def test_a_failed_save_leaves_the_old_file(path, monkeypatch):
    surrogate = random_surrogate(nm.Inverse(), 3, 3, torch.float32)
    nm.save(surrogate, path)
    before = path.read_bytes()

    def full_disk(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        nm.save(surrogate, path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_settings_given_as_numpy_numbers_are_stored(path):
    """A long fit must not end in a surrogate that cannot be saved."""
    problem = nm.Problem(nm.families.trigonometric(3, shift=3.0), nm.SVD(rank=np.int64(2)))
    embedding = nm.SinusoidalMLP(layers=np.int64(1), width=np.int32(8), frequency=np.float32(3.0))
    with pytest.warns(nm.FitWarning):
        surrogate = trained(problem, np.int64(3), steps=np.int64(2), embedding=embedding, tol=np.float32(0.1))
    nm.save(surrogate, path)
    assert nm.load(path).operation == nm.SVD(rank=2)


def test_operations_and_embeddings_of_users_are_stored_by_name(path, monkeypatch):
    monkeypatch.setattr(nm.Operation, "registry", dict(nm.Operation.registry))

    @dataclass(frozen=True)
    class Scaled(nm.Inverse):
        factor: float = 2.0

    nm.save(random_surrogate(Scaled(3.0), 3, 3, torch.float32), path)
    assert nm.load(path).operation == Scaled(3.0)
    del nm.Operation.registry["Scaled"]
    assert_raises(ValueError, ["`path`", "'Scaled'", "import"], lambda: nm.load(path))


# Where and how files are written.


def small(value=0):
    return random_surrogate(nm.Inverse(), 3, 3, torch.float32, seed=value)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_mode_of_the_umask(mask, path):
    before = os.umask(mask)
    try:
        nm.save(small(), path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_an_existing_file_keeps_its_mode(path):
    nm.save(small(), path)
    path.chmod(0o640)
    nm.save(small(1), path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert_the_same(nm.load(path), small(1))


def test_a_link_stays_and_what_it_points_to_is_replaced(path, tmp_path):
    for name in ("there.safetensors", "not_yet.safetensors"):
        target = tmp_path / "folder" / name
        target.parent.mkdir(exist_ok=True)
        if name.startswith("there"):
            nm.save(small(), target)
        path.unlink(missing_ok=True)
        path.symlink_to(target)
        nm.save(small(1), path)
        assert path.is_symlink() and not target.is_symlink()
        assert_the_same(nm.load(target), small(1))
        assert_the_same(nm.load(path), small(1))
    assert len(os.listdir(target.parent)) == 2


def test_what_is_no_file_is_refused_at_once(path, tmp_path):
    os.mkfifo(path)
    (tmp_path / "link").symlink_to(path)
    for special in (path, tmp_path / "link", "/dev/null"):
        before = os.stat(special)
        assert_raises(OSError, ["`path`", "expected a file", "a pipe"], lambda special=special: nm.load(special))
        assert_raises(OSError, ["`path`", "expected a file"], lambda special=special: nm.save(small(), special))
        assert os.stat(special).st_mode == before.st_mode
    for act in (nm.load, lambda folder: nm.save(small(), folder)):
        assert_raises(IsADirectoryError, ["`path`", "a folder"], lambda act=act: act(tmp_path))


@pytest.fixture
def powerless():
    """A folder of somebody who is not root, to whom permissions mean nothing."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        user = os.geteuid()
        os.seteuid(65534 if user == 0 else user)
        yield Path(folder)
        os.seteuid(user)


def test_unreadable_and_write_protected_are_permission_errors(powerless):
    path = powerless / "a.safetensors"
    nm.save(small(), path)
    path.chmod(0o444)
    assert_raises(PermissionError, ["`path`", path.name], lambda: nm.save(small(1), path))
    assert_the_same(nm.load(path), small())
    path.chmod(0)
    assert_raises(PermissionError, ["`path`", "could not read", path.name, "give another path"], lambda: nm.load(path))
    assert os.listdir(powerless) == [path.name]


def test_what_a_killed_save_left_is_removed_and_nothing_else(path):
    left = path.with_name(f"{path.name}.{'0' * 31}f.part")
    others = [path.with_name(f"{path.name}.part"), path.with_name(f"other.{'0' * 32}.part"), path.with_name("x.part")]
    for file in (left, *others):
        file.write_bytes(b"half")
    nm.save(small(), path)
    assert not left.exists() and all(file.exists() for file in others)


def test_what_somebody_still_writes_is_left_alone(path):
    fcntl = pytest.importorskip("fcntl")
    part = path.with_name(f"{path.name}.{'0' * 32}.part")
    with part.open("xb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        nm.save(small(), path)
        assert part.exists()
    nm.save(small(), path)
    assert os.listdir(path.parent) == [path.name]


def test_threads_save_to_one_path(path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda value: nm.save(small(value), path), range(40)))
    core = nm.load(path).maps[0].core
    assert any(torch.equal(core, small(value).maps[0].core) for value in range(40))
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("path", ["a" * 5000, "b/" * 5000, __file__ + "/c"], ids=lambda path: path[:2])
def test_paths_that_cannot_be_are_named_in_part_with_a_remedy(path):
    calls = [lambda: nm.load(path), lambda: nm.save(small(), path)]
    for call in calls:
        with pytest.raises(OSError, match=r"^`path`: .*") as caught:
            call()
        assert len(str(caught.value)) < 300
        assert isinstance(caught.value, FileNotFoundError) or "; give another path." in str(caught.value)
    words = r"^`(path|checkpoint)`: .*; (give another path|create the folder)"
    with pytest.raises((OSError, ValueError), match=words) as caught:
        nm.fit(
            nm.Problem(nm.families.trigonometric(2, shift=3.0), nm.Inverse()),
            rank=1,
            method=nm.ResidualTraining(checkpoint=path, steps=1),
            progress=False,
        )
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_neither_saved_nor_loaded(bad, path):
    surrogate = small()
    nm.save(surrogate, path)
    rewrite(path, {"0.weights.bias1": torch.full((8,), bad)})
    assert_raises(ValueError, ["`path`", "NaN or Inf", "0.weights.bias1"], lambda: nm.load(path))
    surrogate.maps[0].core[0, 1, 1] = bad
    assert_raises(ValueError, ["`surrogate`", "NaN or Inf", "0.core"], lambda: nm.save(surrogate, path))


def absurd_of(path, surrogate, tensors=None, header=None, **settings):
    nm.save(surrogate, path)
    with safetensors.safe_open(path, framework="pt") as file:
        maps = json.loads(file.metadata()["neumatc"])["maps"]
    for entry in maps:
        entry["embedding"]["settings"] |= settings
    rewrite(path, tensors, {"maps": maps} | (header or {}))


def polynomial(d, index):
    box = nm.Box([0.0] * d, [1.0] * d, dtype=torch.float64)
    embedding = nm.Chebyshev(2, index)
    weights = embedding.initialise(d, 3, generator())
    maps = [nm.FactorMap("X", gaussian(3, 3, 3, dtype=torch.float64), embedding, weights)]
    return nm.Surrogate(nm.Inverse(), (3, 3), maps, box, nm.Report("Random", {}, 3, 0))


@pytest.mark.parametrize(
    "absurd",
    [
        lambda path: absurd_of(path, polynomial(1, "total"), degree=2**40),
        lambda path: absurd_of(path, polynomial(3, "tensor"), degree=2**40),
        lambda path: absurd_of(path, polynomial(3, "total"), degree=3),
        lambda path: absurd_of(path, small(), width=2**40),
        lambda path: absurd_of(path, small(), layers=2**40),
        lambda path: absurd_of(path, in_pieces(lambda x: gaussian(len(x), 3, 3, dtype=torch.float64), 2), depth=2**40),
        lambda path: absurd_of(path, small(), header={"shape": [2**40, 2**40]}),
        lambda path: absurd_of(path, small(), header={"operation": {"class": "SVD", "settings": {"rank": 2**40}}}),
        lambda path: absurd_of(path, small(), {"lower": torch.zeros(10**6), "upper": torch.ones(10**6)}, {"box": {}}),
        lambda path: absurd_of(path, small(), header={"shape": [10**400, 3]}),
        lambda path: absurd_of(path, small(), header={"box": {"names": "x" * 10**7}}),
    ],
)
def test_absurd_sizes_are_refused_before_anything_is_made_of_them(absurd, path):
    absurd(path)
    assert_raises(ValueError, ["`path`", "save the surrogate again"], lambda: nm.load(path))
    with pytest.raises(ValueError, match="path") as caught:
        nm.load(path)
    assert len(str(caught.value)) < 300 + len(str(path))


@pytest.mark.parametrize(("name", "bad"), [("counts", 10**9), ("first", 10**9), ("children", 10**9), ("axis", 7)])
def test_pieces_that_point_elsewhere_are_refused(name, bad, path):
    surrogate = in_pieces(lambda x: gaussian(len(x), 3, 3, dtype=torch.float64), 2)
    nm.save(surrogate, path)
    weight = surrogate.maps[0].weights[name].clone()
    weight.view(-1)[0] = bad
    rewrite(path, {f"0.weights.{name}": weight})
    assert_raises(ValueError, ["`path`", "do not give rank"], lambda: nm.load(path))
