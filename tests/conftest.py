"""`--long` runs what takes too long for every change: soaks, whole frameworks, browsers at length."""

import hypothesis
import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the tests marked `long`")


def pytest_configure(config: pytest.Config) -> None:
    """Every run draws the same examples, so that what is red stays red; long runs look for new ones."""
    hypothesis.settings.register_profile("steady", derandomize=True)
    hypothesis.settings.load_profile("default" if config.getoption("--long") else "steady")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="takes long: scripts/test --long"))
