import pytest

from relay.local_engine.dialogue.policy import PlannedCall, TurnContext, plan_response
from relay.local_engine.nlu.grammar import Grammar
from tests.local_engine.engine_stage import TOOLS

GRAMMAR = Grammar(TOOLS)


def test_nothing_said_is_answered_with_a_greeting_that_says_who_it_is():
    assert "local engine" in " ".join(plan_response(GRAMMAR, TurnContext()).sentences)


def test_the_story_takes_a_minute_and_more():
    words = " ".join(plan_response(GRAMMAR, TurnContext("tell me a story")).sentences).split()
    assert len(words) > 250


def test_what_it_can_do_is_what_the_session_has():
    said = " ".join(plan_response(GRAMMAR, TurnContext("what can you do")).sentences)
    assert "current time, roll dice and convert units" in said
    assert "roll a die" in said
    assert "no tools" in " ".join(plan_response(Grammar([]), TurnContext("what can you do")).sentences)


def test_a_missing_argument_is_asked_for():
    todo = plan_response(GRAMMAR, TurnContext("what is the current time"))
    assert todo.calls == ()
    assert todo.sentences == ("For current time I need the city. Say for example: what time is it in Amsterdam.",)


def test_outputs_and_new_words_are_both_answered():
    todo = plan_response(GRAMMAR, TurnContext("roll a die", [("current_time", '{"summary":"It is noon."}')]))
    assert todo.sentences == ("It is noon.",)
    assert todo.calls == (PlannedCall("roll_dice", {}),)


@pytest.mark.parametrize("said", [None, "", "hello", "where is my phone"])
def test_a_required_call_is_always_made(said: str | None):
    [call] = plan_response(GRAMMAR, TurnContext(said, tool_choice="required")).calls
    assert call == PlannedCall("current_time", {"city": "Amsterdam"})


def test_a_required_call_takes_what_was_said():
    [call] = plan_response(
        GRAMMAR, TurnContext("what time is it in Oslo", tool_choice={"type": "function", "name": "current_time"})
    ).calls
    assert call == PlannedCall("current_time", {"city": "Oslo"})
    [call] = plan_response(GRAMMAR, TurnContext("roll two dice", tool_choice="required")).calls
    assert call == PlannedCall("roll_dice", {"count": 2})


def test_an_unknown_function_cannot_be_forced():
    assert plan_response(GRAMMAR, TurnContext(None, tool_choice={"type": "function", "name": "nobody"})).calls == ()
