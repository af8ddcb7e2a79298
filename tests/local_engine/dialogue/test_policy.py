import pytest

from relay.local_engine.dialogue.policy import PlannedCall, plan_response
from relay.local_engine.dialogue.turn_context import TurnContext
from relay.local_engine.nlu.grammar import Grammar
from tests.local_engine.engine_harness import TOOLS

GRAMMAR = Grammar(TOOLS)


def test_without_input_it_greets_and_introduces_itself():
    assert "local engine" in " ".join(plan_response(GRAMMAR, TurnContext()).sentences)


def test_the_story_takes_a_minute_and_more():
    words = " ".join(plan_response(GRAMMAR, TurnContext("tell me a story")).sentences).split()
    assert len(words) > 250


def test_help_lists_the_tools_of_the_session():
    answer = " ".join(plan_response(GRAMMAR, TurnContext("what can you do")).sentences)
    assert "current time, roll dice and convert units" in answer
    assert "roll a die" in answer
    assert "no tools" in " ".join(plan_response(Grammar([]), TurnContext("what can you do")).sentences)


def test_a_missing_argument_is_asked_for():
    plan = plan_response(GRAMMAR, TurnContext("what is the current time"))
    assert plan.calls == ()
    assert plan.sentences == ("For current time I need the city. Say for example: what time is it in Amsterdam.",)


def test_outputs_and_new_text_are_both_answered():
    plan = plan_response(GRAMMAR, TurnContext("roll a die", [("current_time", '{"summary":"It is noon."}')]))
    assert plan.sentences == ("It is noon.",)
    assert plan.calls == (PlannedCall("roll_dice", {}),)


@pytest.mark.parametrize("text", [None, "", "hello", "where is my phone"])
def test_a_required_call_is_always_made(text: str | None):
    [call] = plan_response(GRAMMAR, TurnContext(text, tool_choice="required")).calls
    assert call == PlannedCall("current_time", {"city": "Amsterdam"})


def test_a_required_call_uses_the_values_of_the_user():
    [call] = plan_response(
        GRAMMAR, TurnContext("what time is it in Oslo", tool_choice={"type": "function", "name": "current_time"})
    ).calls
    assert call == PlannedCall("current_time", {"city": "Oslo"})
    [call] = plan_response(GRAMMAR, TurnContext("roll two dice", tool_choice="required")).calls
    assert call == PlannedCall("roll_dice", {"count": 2})


def test_an_unknown_function_cannot_be_forced():
    assert plan_response(GRAMMAR, TurnContext(None, tool_choice={"type": "function", "name": "nobody"})).calls == ()
