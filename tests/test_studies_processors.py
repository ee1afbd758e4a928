"""The tests under other settings: what a processor cannot run, what is counted, and that nothing is left running."""

import os
import sys

import pytest

from studies import processors

TINY = """
import os

def test_threads():
    assert os.environ["OMP_NUM_THREADS"] == "1"

def test_kernels():
    assert os.environ.get("OPENBLAS_CORETYPE") != "Haswell"
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of two tests, the second of which fails with Haswell's kernels."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "neumatc"\n')
    (tmp_path / "test_tiny.py").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processors, "cpu_flags", lambda: processors.AVX2)
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take seconds to load
    return tmp_path


def test_flags_are_read_from_the_text_of_the_kernel():
    assert processors.cpu_flags("model name\t: x\nflags\t\t: fpu avx2 fma\nflags\t\t: other\n") == {
        "fpu",
        "avx2",
        "fma",
    }
    assert processors.cpu_flags("Features\t: fp asimd\n") == {"fp", "asimd"}
    assert processors.cpu_flags("") == set()


def test_cells_and_their_failures_are_told_apart(project, capsys):
    assert processors.main(["openblas", "threads 1", "--", "-p", "no:cacheprovider"]) == 1
    lines = capsys.readouterr().out.splitlines()
    table = lines[next(i for i, line in enumerate(lines) if line.startswith("cell")) + 1 :]
    assert table[0] == "openblas Haswell  1  1  0  test_tiny::test_kernels"
    assert table[1].startswith("openblas SkylakeX        not on this processor (")
    assert "avx512f" in table[1]
    assert table[2:] == ["openblas Zen  2  0  0  none", "threads 1  2  0  0  none"]


def test_a_cell_that_cannot_run_is_no_failure(project):
    assert processors.main(["openblas SkylakeX"]) == 0


def test_a_run_without_tests_is_a_failure(project):
    outcome = processors.run(processors.Cell("x"), ["-p", "no:cacheprovider", "-k", "nothing"])
    assert outcome.failed == ("pytest ended with status 5",)


def test_a_python_that_is_not_here_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert processors.interpreter(4) is None
    assert processors.python_of(processors.Cell("x", python=4)) == ("", "no Python 3.4 here")
    assert processors.python_of(processors.Cell("x", python=sys.version_info[1])) == (sys.executable, "")


def test_a_report_counts_each_test_once(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite><testcase classname="a" name="one"/>'
        '<testcase classname="a" name="one"><error/></testcase>'
        '<testcase classname="a" name="two"><skipped/></testcase></testsuite></testsuites>'
    )
    assert processors.read(report) == ({"passed": 0, "failed": 1, "skipped": 1}, ("a::one",))


def test_no_load_is_left_behind(monkeypatch):
    started, start = [], processors.subprocess.Popen
    monkeypatch.setattr(processors.subprocess, "Popen", lambda *a: started.append(start(*a)) or started[-1])
    with processors.load(2):
        assert [process.poll() for process in started] == [None, None]
    with pytest.raises(KeyboardInterrupt), processors.load(1):
        raise KeyboardInterrupt
    for process in started:
        with pytest.raises(ProcessLookupError):
            os.kill(process.pid, 0)
    assert len(started) == 3
