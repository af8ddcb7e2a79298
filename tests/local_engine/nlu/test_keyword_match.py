import pytest

from relay.local_engine.nlu.clauses import ToolInfo
from relay.local_engine.nlu.keyword_match import match_keywords
from tests.local_engine.engine_harness import TOOLS

INFOS = [ToolInfo.from_tool(tool) for tool in TOOLS]


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("I need the current time for Berlin!", "current_time", {"city": "Berlin"}),
        ("dice, 3 of them", "roll_dice", {"count": 3}),
        (
            "please do a conversion: convert from 3 pounds into kilograms",
            "convert_units",
            {"value": 3, "from_unit": "pounds", "to_unit": "kilograms"},
        ),
        ("the time?", "current_time", {}),
    ],
)
def test_words_and_values_lead_to_a_tool(text: str, name: str, arguments: dict[str, object]):
    request = match_keywords(text, INFOS)
    assert request is not None
    assert (request.name, request.arguments) == (name, arguments)


@pytest.mark.parametrize("text", ["", "where is my phone", "what can I do for you", "2 3 4"])
def test_without_a_common_word_there_is_no_match(text: str):
    assert match_keywords(text, INFOS) is None


def test_two_equal_tools_are_no_match():
    twins = [ToolInfo("send_mail", "", {}, ()), ToolInfo("mail_send", "", {}, ())]
    assert match_keywords("send mail", twins) is None
