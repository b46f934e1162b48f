"""Options and fixtures that tests of the whole package share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

import mxdeconv._C as _C

# How fast examples are made says something about the machine only.
settings.register_profile("mxdeconv", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mxdeconv")

ISAS: list[str] = _C.build_info()["cpu_isas"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    skip = pytest.mark.skip(reason="slow: run with --slow")
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(skip)


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that was built and runs here, in use during the test."""
    before = _C.build_info()["cpu_isa"]
    _C.set_cpu_isa(request.param)
    yield request.param
    _C.set_cpu_isa(before)


@pytest.fixture
def restored_threads() -> Iterator[None]:
    """The number of threads after the test is the one before it."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def poison() -> Iterator[None]:
    """Scratch and every torch.empty hold NaN: what is read before it is written shows."""
    fill = torch.utils.deterministic.fill_uninitialized_memory
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True)
    _C.set_poison_scratch(True)
    yield
    _C.set_poison_scratch(False)
    torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = fill
