"""How pytest runs the examples of docstrings, here and where the library is installed: `pytest --pyargs neumatc`."""

from importlib.util import find_spec

import pytest

# Calls of the examples, and the package of an extra that they need.
_NEEDS = {"import wireless": "sionna", ".plot(": "matplotlib"}
# Modules that need a package which is not there.
collect_ignore = [] if find_spec("sionna") else ["sionna.py"]
if not (find_spec("distributed") and find_spec("zarr")):
    collect_ignore += ["distributed"]


def pytest_configure(config: pytest.Config) -> None:
    """Collect examples; their comparison ignores the length of blanks, and what `...` stands for."""
    config.option.doctestmodules = True
    for flag in ("ELLIPSIS", "NORMALIZE_WHITESPACE"):
        config.addinivalue_line("doctest_optionflags", flag)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the examples that need a package which is not there."""
    for item in items:
        source = "".join(x.source for x in item.dtest.examples) if isinstance(item, pytest.DoctestItem) else ""
        for call, package in _NEEDS.items():
            if call in source and find_spec(package) is None:
                item.add_marker(pytest.mark.skip(reason=f"needs {package}, see the extras of neumatc"))
