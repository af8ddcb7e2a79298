"""`--long` runs what takes too long for every change: soaks, whole frameworks, browsers at length."""

import hypothesis
import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the tests marked `long`")


def pytest_configure(config: pytest.Config) -> None:
    """Every run draws the same examples, so that what is red stays red; long runs look for new ones. How long one takes
    says more of the machine than of the code."""
    hypothesis.settings.register_profile("steady", derandomize=True, deadline=None)
    hypothesis.settings.register_profile("searching", deadline=None)
    hypothesis.settings.load_profile("searching" if config.getoption("--long") else "steady")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="takes long: scripts/test --long"))
