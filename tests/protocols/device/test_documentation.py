"""The documentation page of the device protocol is complete, and its examples are valid."""

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from relay.session.common.close_codes import CloseCode
from relay.session.common.model import ErrorCode
from tests.support.device_schema import DEFS, MESSAGES, check, name_of

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "device-protocol.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", PAGE, re.MULTILINE))
DIRECTIONS = {"relay": "toClient", "client": "toRelay"}


def examples() -> list[tuple[str, str]]:
    """(direction, message) of every example: whole blocks of JSON, and the lines of the transcripts."""
    found = re.findall(r"^(relay|client)\s+(\{.*)$", PAGE, re.MULTILINE)
    for speaker, section in (("relay", "From the relay"), ("client", "To the relay")):
        for block in re.findall(r"```json\n(.*?)```", SECTIONS[section], re.DOTALL):
            found += [(speaker, line) for line in block.splitlines()]
    return [(DIRECTIONS[speaker], message) for speaker, message in found]


@pytest.mark.parametrize(("direction", "example"), examples(), ids=str)
def test_every_example_is_valid(direction: Any, example: str) -> None:
    check(json.loads(example), direction)


def test_every_json_on_the_page_is_an_example_that_is_checked() -> None:
    assert len(examples()) == len(re.findall(r'^(?:(?:relay|client)\s+)?\{"type".*\}$', PAGE, re.MULTILINE)) > 50


@pytest.mark.parametrize(("direction", "section"), [("toClient", "From the relay"), ("toRelay", "To the relay")])
def test_every_message_is_in_the_table_of_its_direction_and_has_an_example(direction: Any, section: str) -> None:
    table = {
        name
        for row in re.findall(r"^\| (.+?) \|", SECTIONS[section], re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    assert set(MESSAGES[direction]) <= table
    assert {name_of(json.loads(text)) for where, text in examples() if where == direction} == set(MESSAGES[direction])


def test_every_field_is_seen_in_an_example() -> None:
    seen: dict[str, set[str]] = {}
    for _, text in examples():
        message = json.loads(text)
        seen.setdefault(name_of(message), set()).update(message)
    not_shown = {"hello": {"consent"}}
    for names in MESSAGES.values():
        for name in names:
            assert seen[name] == set(DEFS[name]["properties"]) - not_shown.get(name, set()), name


def test_every_error_code_is_explained() -> None:
    explained = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.+?) \|", SECTIONS["From the relay"], re.MULTILINE)))
    assert set(get_args(ErrorCode)) <= set(explained)


def test_every_close_code_is_in_the_table_with_what_to_do() -> None:
    rows = re.findall(
        r"^\| ([\d, ]+?)(?:,? or none)? \| (.+?) \| (.*?) \|$", SECTIONS["How a session ends"], re.MULTILINE
    )
    retries = {int(code): retry for codes, _, retry in rows for code in re.findall(r"\d{4}", codes)}
    assert retries.keys() == set(CloseCode) - {CloseCode.SERVICE_RESTART}
    assert all(retries.values())


def test_the_readme_and_the_clients_are_linked() -> None:
    assert "docs/device-protocol.md" in (ROOT / "README.md").read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
