"""Limits of a policy on each field, in GA form."""

from typing import Any

import pytest

from relay.session.common.policy import DEFAULT_ALLOW, RealtimePolicy
from relay.session.realtime.policy_table import PolicyViolation, apply_limits, apply_policy, check_session

Obj = dict[str, Any]
URL = "https://example.com/x"
KIOSK = RealtimePolicy(
    instructions="Be the museum.",
    models=("gpt-realtime",),
    voices=("cedar", "marin*"),
    transcription_models=("whisper-1",),
    max_output_tokens=100,
    max_effort="low",
    allow=DEFAULT_ALLOW,
)


def session(policy: RealtimePolicy = KIOSK, **members: Any) -> Obj:
    """Return a session as the policy allows it."""
    event_session: Obj = apply_policy({"type": "session.update", "session": members}, policy)["session"]
    return event_session


def response(policy: RealtimePolicy = KIOSK, **members: Any) -> Obj:
    event_response: Obj = apply_policy({"type": "response.create", "response": members}, policy)["response"]
    return event_response


def refusal(policy: RealtimePolicy = KIOSK, kind: str = "session.update", **event: Any) -> tuple[str, str | None]:
    """The code and the field of a violation."""
    with pytest.raises(PolicyViolation) as denied:
        apply_policy({"type": kind, **event}, policy)
    return denied.value.code, denied.value.param


# -- names ------------------------------------------------------------------------------------------------------------

ODD_NAMES = [
    "alloy", "Cedar", "cedar ", " cedar", "ced\u0430r", "cedar\u0000", "", None, 7, True, [], ["cedar"], {},
    {"id": "alloy"}, {"id": "cedar", "name": "alloy"}, {"name": "cedar"}, {"id": ["cedar"]}, "x" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("name", ODD_NAMES)
def test_only_a_name_of_the_list_is_a_voice_a_model_or_a_transcription_model(name: Any) -> None:
    odd = refusal(session={"audio": {"output": {"voice": name}}})
    assert odd == ("invalid_value", "session.audio.output.voice")
    odd = refusal(kind="response.create", response={"audio": {"output": {"voice": name}}})
    assert odd == ("invalid_value", "response.audio.output.voice")
    assert refusal(session={"model": name}) == ("invalid_value", "session.model")
    odd = refusal(session={"audio": {"input": {"transcription": {"model": name}}}})
    assert odd == ("invalid_value", "session.audio.input.transcription.model")


@pytest.mark.parametrize("name", ["cedar", "marin", "marin-2", {"id": "cedar"}])
def test_a_name_of_the_list_passes_as_it_is_written(name: Any) -> None:
    audio = {"output": {"voice": name}}
    assert session(audio=audio) == {"audio": audio}


@pytest.mark.parametrize("given", [{}, {"language": "de"}])
def test_a_transcription_without_a_model_has_the_first_of_the_policy(given: Obj) -> None:
    audio = session(audio={"input": {"transcription": given}})["audio"]
    assert audio["input"]["transcription"] == given | {"model": "whisper-1"}
    assert session(audio={"input": {"transcription": None}})["audio"]["input"]["transcription"] is None
    patterns = RealtimePolicy(transcription_models=("gpt-4o-*",))
    assert refusal(patterns, session={"audio": {"input": {"transcription": given}}})[0] == "invalid_value"


# -- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["inf", "INF", "Infinity", "50", None, 50.0, 1e9, 101, True, 0, -1, "NaN", [], {}, [50], {"value": 50}]
)
def test_other_values_become_the_cap(value: Any) -> None:
    assert session(max_output_tokens=value) == {"max_output_tokens": 100}
    assert response(max_output_tokens=value) == {"max_output_tokens": 100}


@pytest.mark.parametrize("value", [1, 50, 100])
def test_a_number_within_the_cap_passes(value: int) -> None:
    assert session(max_output_tokens=value) == {"max_output_tokens": value}


@pytest.mark.parametrize("value", ["medium", "HIGH", "low ", None, 1, [], {}, ["minimal"]])
def test_unknown_effort_becomes_the_cap(value: Any) -> None:
    assert session(reasoning={"effort": value}) == {"reasoning": {"effort": "low"}}


def test_reasoning_that_says_nothing_of_effort_does_not_bring_back_a_default() -> None:
    assert session(reasoning={}) == session(reasoning=None) == {"reasoning": {"effort": "low"}}
    assert response(reasoning={"effort": "minimal"}) == {"reasoning": {"effort": "minimal"}}
    assert refusal(session={"reasoning": "high"})[0] == "invalid_type"


# -- what is unknown --------------------------------------------------------------------------------------------------

ELSEWHERE = ["voice", "modalities", "max_response_output_tokens", "input_audio_transcription", "temperature", "Model",
             "max_tokens", "model ", "reasoning_effort", "system", "\u0456nstructions"]  # fmt: skip
"""Other names that a limited field could have."""


@pytest.mark.parametrize("name", ELSEWHERE)
@pytest.mark.parametrize(
    "limit",
    [{"voices": ("cedar",)}, {"models": ("m",)}, {"transcription_models": ("t",)}, {"max_output_tokens": 5},
     {"max_effort": "low"}, {"instructions": "x"}, {"allow": DEFAULT_ALLOW - {"prompt"}}],
)  # fmt: skip
def test_where_something_is_limited_an_unknown_field_is_refused_whatever_the_capabilities(
    name: str, limit: Obj
) -> None:
    policy = RealtimePolicy(**limit)
    assert "unknown" in policy.allow
    for kind, part in (("session.update", "session"), ("response.create", "response")):
        assert refusal(policy, kind, **{part: {name: "x"}}) == ("unknown_parameter", f"{part}.{name}")
        assert refusal(policy, kind, **{part: {"audio": {name: 1}}})[1] == f"{part}.audio.{name}"
        assert refusal(policy, kind, **{part: {"audio": {"output": {name: []}}}})[1] == f"{part}.audio.output.{name}"
        assert refusal(policy, kind, **{name: {}}) == ("unknown_parameter", name)


def test_unknown_members_of_other_objects_are_refused_there_as_well() -> None:
    transcription = {"model": "whisper-1", "engine": "x"}
    assert refusal(session={"audio": {"input": {"transcription": transcription}}})[0] == "unknown_parameter"
    assert refusal(session={"reasoning": {"effort": "low", "budget": 1}})[1] == "session.reasoning.budget"
    assert refusal(session={"truncation": {"type": "x", "tokens": 1}})[1] == "session.truncation.tokens"


@pytest.mark.parametrize("kind", ["brand.new", "transcription_session.update", "Session.Update", "session.update "])
def test_where_something_is_limited_an_unknown_event_is_refused(kind: str) -> None:
    assert refusal(kind=kind) == ("unknown_event_type", "type")


def test_an_event_of_the_other_dialect_is_no_way_around_the_table() -> None:
    body = {"session": {"input_audio_transcription": {"model": "x"}}}
    assert refusal(RealtimePolicy(), "transcription_session.update", **body)[0] == "unknown_event_type"


@pytest.mark.parametrize(
    "value", [URL, ["a", URL], {"a": {"url": "x"}}, {"server": "example.com"}, {"type": "mcp"}, {"a": [[{"b": "//x"}]]},
              {"connector_id": "x"}, [{"type": "input_image", "file_id": "file-1"}]]
)  # fmt: skip
def test_unknown_members_hold_no_address_where_addresses_are_denied(value: Any) -> None:
    policy = RealtimePolicy()
    assert refusal(policy, "brand.new", x=value)[0] == "unknown_event_type"
    assert refusal(policy, session={"new": value}) == ("unknown_parameter", "session.new")
    assert refusal(policy, "response.create", response={"audio": {"new": value}})[1] == "response.audio.new"
    assert refusal(policy, "input_audio_buffer.commit", new=value) == ("unknown_parameter", "new")


def test_where_only_addresses_are_denied_new_settings_and_events_pass() -> None:
    policy, new = RealtimePolicy(), {"mode": "fast", "levels": [1, 2.5, {"deep": None}]}
    assert session(policy, new=new) == {"new": new}
    assert apply_policy({"type": "brand.new", "x": [{}], "y": new}, policy)["y"] == new


# -- null and other types ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "param"),
    [
        ({"session": None}, "session"),
        ({"session": []}, "session"),
        ({"session": "x"}, "session"),
        ({"session": {"audio": None}}, "session.audio"),
        ({"session": {"audio": {"output": None}}}, "session.audio.output"),
        ({"session": {"audio": {"input": None}}}, "session.audio.input"),
        ({"session": {"audio": [{"output": {"voice": "alloy"}}]}}, "session.audio"),
        ({"session": {"audio": {"output": "alloy"}}}, "session.audio.output"),
        ({"session": {"audio": {"input": {"transcription": "gpt-4o"}}}}, "session.audio.input.transcription"),
        ({"session": {"instructions": ["x"]}}, "session.instructions"),
        ({"session": {"type": {"a": 1}}}, "session.type"),
        ({"session": {"type": "translation"}}, "session.type"),
        ({"session": {"tools": {"type": "mcp"}}}, "session.tools"),
        ({"session": {"include": [{"a": 1}]}}, "session.include[0]"),
    ],
)
def test_no_value_replaces_an_object_that_holds_limits(event: Obj, param: str) -> None:
    assert refusal(**event)[1] == param


def test_long_paths_are_truncated_in_messages() -> None:
    deep: Any = 1
    for _ in range(240):
        deep = {"a": deep}
    assert session(RealtimePolicy(), new=deep) == {"new": deep}
    with pytest.raises(PolicyViolation) as denied:
        session(**{"x" * 1_000_000: deep})
    assert len(str(denied.value)) < 2000
    assert len(denied.value.param or "") <= 120


# -- dropping ---------------------------------------------------------------------------------------------------------


def test_fields_are_dropped_only_where_the_policy_says_so() -> None:
    drop = RealtimePolicy(voices=("cedar",), max_output_tokens=5, denied_fields="drop")
    audio = {"output": {"voice": "alloy", "speed": 1.2, "Voice": "alloy"}}
    assert session(drop, audio=audio, voice="alloy", max_output_tokens="inf") == {
        "audio": {"output": {"speed": 1.2}},
        "max_output_tokens": 5,
    }
    assert refusal(drop, "brand.new")[0] == "unknown_event_type"
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a", "file_url": URL}]}
    assert refusal(drop, "conversation.item.create", item=item)[1] == "item.content[0].file_url"
    assert refusal(drop, "response.create", response={"input": [item]})[1] == "response.input[0].content[0].file_url"


# -- from the start ---------------------------------------------------------------------------------------------------


def test_the_limits_are_active_from_the_start() -> None:
    assert apply_limits({}, KIOSK) == {
        "max_output_tokens": 100,
        "reasoning": {"effort": "low"},
        "audio": {"output": {"voice": "cedar"}},
    }


def test_a_client_secret_does_not_exceed_the_limits() -> None:
    secret = {"max_output_tokens": "inf", "reasoning": None, "audio": {"input": {"transcription": {}}, "output": {}}}
    assert apply_limits(check_session(secret, KIOSK), KIOSK) == {
        "max_output_tokens": 100,
        "reasoning": {"effort": "low"},
        "audio": {"input": {"transcription": {"model": "whisper-1"}}, "output": {"voice": "cedar"}},
    }


def test_a_disallowed_transcription_model_of_the_upstream_is_replaced() -> None:
    def found(model: str | None) -> Obj:
        return {"audio": {"input": {"transcription": None if model is None else {"model": model}}}}

    assert apply_limits({}, KIOSK, found("other"))["audio"]["input"] == {"transcription": {"model": "whisper-1"}}
    assert "input" not in apply_limits({}, KIOSK, found("whisper-1"))["audio"]
    assert "input" not in apply_limits({}, KIOSK, found(None))["audio"]


def test_the_first_voice_that_is_a_name_is_the_one_to_begin_with() -> None:
    assert apply_limits({}, RealtimePolicy(voices=("m*", "cedar")))["audio"]["output"] == {"voice": "cedar"}
    assert apply_limits({}, RealtimePolicy(voices=("cedar", "*"))) == {}
    external = RealtimePolicy(voices=("elevenlabs:a", "cedar", "marin"))
    assert apply_limits({}, external)["audio"]["output"] == {"voice": "cedar"}, "the model gets no external voice"


def test_without_a_literal_name_transcription_is_turned_off() -> None:
    policy = RealtimePolicy(transcription_models=("gpt-4o-*",))
    found = {"audio": {"input": {"transcription": {"model": "whisper-1"}}}}
    assert apply_limits({}, policy, found)["audio"]["input"] == {"transcription": None}
    found["audio"]["input"]["transcription"]["model"] = "gpt-4o-mini"
    assert apply_limits({}, policy, found) == {}
