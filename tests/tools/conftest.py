"""The shipped tools, found the way the relay finds them."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from relay.toolkit.loading.loader import LoadResult
from tests.support.tool_folders import load_folder

FOLDER = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="session")
def shipped() -> LoadResult:
    return load_folder(FOLDER)


@pytest.fixture(scope="session")
def clock(shipped: LoadResult) -> ModuleType:
    return module_of(shipped, "current_time")


@pytest.fixture(scope="session")
def dice(shipped: LoadResult) -> ModuleType:
    return module_of(shipped, "roll_dice")


@pytest.fixture(scope="session")
def units(shipped: LoadResult) -> ModuleType:
    return module_of(shipped, "convert_units")


def module_of(shipped: LoadResult, name: str) -> ModuleType:
    (found,) = [one for one in shipped.tools if one.name == name]
    return sys.modules[found.function.__module__]
