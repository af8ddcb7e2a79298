"""Whatever a client sends, in any dialect, no upstream gets what the policy does not allow."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.protocols.openai.beta import BetaClientDialect, BetaUpstreamDialect
from relay.protocols.openai.proxy import ProxyCodec, append_audio_bytes
from relay.session.common.policy import DEFAULT_ALLOW, Policy, Principal, RealtimePolicy
from relay.session.common.session_state import Phase
from relay.session.realtime.events import InvalidClientMessage, RealtimeClientEvent, RealtimeServerEvent, SendToUpstream
from relay.session.realtime.session import RealtimeSession
from tests.support.realtime_session_harness import CLOCK, DICE, LAMP

Obj = dict[str, Any]
OWN = "Be the museum."
URL = "https://evil.example/x"
VOICE, MODEL, HEARS = "cedar", "gpt-realtime", "whisper-1"
CAP = 100
LIMITS: Obj = {
    "instructions": OWN, "voices": (VOICE,), "models": (MODEL,), "transcription_models": (HEARS,),
    "max_output_tokens": CAP, "max_effort": "low", "allow": DEFAULT_ALLOW,
}  # fmt: skip
POLICIES = {drops: RealtimePolicy(denied_fields="drop" if drops else "refuse", **LIMITS) for drops in (False, True)}

# -- what may be sent -------------------------------------------------------------------------------------------------

COMMON = {"instructions", "tools", "tool_choice", "prompt"}
IN_SESSION = COMMON | {"id", "object", "expires_at", "model", "tracing", "include"}
IN_RESPONSE = COMMON | {"metadata", "conversation", "input", "parallel_tool_calls"}
MEMBERS = {
    "ga": {
        "session": IN_SESSION | {"type", "parallel_tool_calls", "max_output_tokens", "output_modalities", "reasoning",
                                 "truncation", "audio"},
        "response": IN_RESPONSE | {"max_output_tokens", "output_modalities", "reasoning", "audio"},
    },
    "beta": {
        "session": IN_SESSION | {"modalities", "voice", "speed", "output_audio_format", "input_audio_format",
                                 "input_audio_transcription", "input_audio_noise_reduction", "turn_detection",
                                 "max_response_output_tokens"},
        "response": IN_RESPONSE | {"modalities", "voice", "output_audio_format", "max_response_output_tokens"},
    },
}  # fmt: skip
AUDIO = {
    "input": {"format", "noise_reduction", "transcription", "turn_detection"},
    "output": {"format", "voice", "speed"},
}
HEARING = {"model", "language", "languages", "prompt", "delay", "keywords"}
EVENT = {"type", "event_id", "session", "response", "item", "previous_item_id", "item_id", "content_index",
         "audio_end_ms", "response_id", "audio"}  # fmt: skip
ITEM = {"type", "id", "object", "status", "role", "content", "call_id", "name", "arguments", "output"}
PART = {"type", "text", "audio", "transcript", "image_url", "detail", "id"}
TOOL = {"type", "name", "description", "parameters", "strict"}
FETCHED = {"image_url", "file_url", "file_id", "server_url", "url", "connector_id", "server", "attachments"}


class Upstream:
    """The upstream: it receives messages of its dialect, and checks each against the policy."""

    def __init__(self, dialect: str) -> None:
        self.dialect = dialect
        self.frames = 0

    def take(self, frame: bytes) -> None:
        self.frames += 1
        event = json.loads(frame)
        assert event.keys() <= EVENT, event
        kind = event["type"]
        if kind in ("session.update", "transcription_session.update"):
            self._settings(event["session"], "session")
        elif kind == "response.create" and event.get("response") is not None:
            self._settings(event["response"], "response")
        elif kind == "conversation.item.create":
            self._item(event["item"])
        else:
            assert not event.keys() & {"session", "response", "item"}, event

    def _settings(self, settings: Obj, part: str) -> None:
        assert settings.keys() <= MEMBERS[self.dialect][part], settings
        settings = settings if self.dialect == "ga" else self._as_ga(settings)
        audio = settings.get("audio", {})
        assert all(audio[way].keys() <= AUDIO[way] for way in audio), settings
        assert audio.get("output", {}).get("voice", VOICE) in (VOICE, {"id": VOICE}), settings
        hearing = audio.get("input", {}).get("transcription")
        assert hearing is None or (hearing.keys() <= HEARING and hearing["model"] == HEARS), settings
        assert settings.get("model", MODEL) == MODEL, settings
        tokens = settings.get("max_output_tokens", CAP)
        assert type(tokens) is int, settings
        assert 1 <= tokens <= CAP, settings
        assert settings.get("reasoning", {"effort": "low"}) in ({"effort": "low"}, {"effort": "minimal"}), settings
        assert str(settings.get("instructions", OWN)).startswith(OWN), settings
        for tool in settings.get("tools") or ():
            assert tool.keys() <= TOOL, settings
            assert tool.get("type", "function") == "function", settings
        for item in settings.get("input") or ():
            self._item(item)
        assert not is_fetched(settings.get("prompt")), settings

    def _as_ga(self, settings: Obj) -> Obj:
        """The limited fields by their names in GA."""
        ways: Obj = {"input": {}, "output": {}}
        for name, way, key in (("voice", "output", "voice"), ("input_audio_transcription", "input", "transcription")):
            if name in settings:
                ways[way][key] = settings[name]
        cap = "max_response_output_tokens"
        return settings | {"audio": ways} | ({"max_output_tokens": settings[cap]} if cap in settings else {})

    def _item(self, item: Obj) -> None:
        assert item.keys() <= ITEM, item
        content = item.get("content")
        assert content is None or isinstance(content, list), item
        output = item.get("output")
        assert output is None or isinstance(output, str | list), item
        for part in (content or []) + (output if isinstance(output, list) else []):
            assert part.keys() <= PART, item
            assert not is_fetched(part), item


def is_fetched(value: Any) -> bool:
    """Whether some member is one that the upstream fetches."""
    if isinstance(value, dict):
        members = {key for key, member in value.items() if member is not None and not str(member).startswith("data:")}
        return bool(members & FETCHED) or any(map(is_fetched, value.values()))
    return isinstance(value, list) and any(map(is_fetched, value))


# -- what a client may say --------------------------------------------------------------------------------------------

URL_PARTS: list[Any] = [
    {"type": "input_image", "image_url": URL}, {"type": "input_image", "image_url": {"url": URL}},
    {"type": "input_text", "text": "hi", "file_url": URL}, {"type": "input_file", "file_id": "file-1"},
    {"type": "input_text", "text": "hi", "Image_URL": URL}, {"image_url": URL}, {"type": "input_image", "file_id": "f"},
]  # fmt: skip
MCP: Obj = {"type": "mcp", "server_label": "s", "server_url": URL}
CAPS: list[Any] = [None, True, 0, -1, 50, 50.0, 101, 1e9, "inf", "INF", "50", [], {}, {"value": 50}]
VOICES: list[Any] = ["alloy", "Cedar", "cedar ", VOICE, None, 7, {"id": "alloy"}, {"id": VOICE}, ["alloy"], {},
                     {"id": VOICE, "name": "alloy"}, {"name": "alloy"}]  # fmt: skip
EFFORTS: list[Any] = ["high", "medium", "low", "minimal", "LOW", "most", None, 3, [], {}]
REASONING: list[Any] = [None, {}, "high", [], {"effort": "high", "budget": 9}, *({"effort": one} for one in EFFORTS)]
MODELS: list[Any] = ["o9", MODEL, "Gpt-Realtime", None, {"id": "o9"}, [MODEL], {}]
HEARINGS: list[Any] = [None, {}, "o9", ["o9"], {"model": "o9"}, {"model": HEARS}, {"language": "de"}, {"model": None},
                       {"model": HEARS, "engine": "o9"}, {"model": {"id": "o9"}}, {"Model": "o9"}]  # fmt: skip
TOOLS: list[Any] = [None, {}, LAMP, MCP, [MCP], [LAMP], [LAMP, MCP], [LAMP | {"type": "MCP", "server_url": URL}],
                    [LAMP | {"server_url": URL}], [{"server_url": URL}], [LAMP | {"connector_id": "c"}],
                    [[MCP]]]  # fmt: skip
PROMPTS: list[Any] = [
    None, URL, {"id": "p"}, {"id": "p", "variables": {"x": "hi"}}, {"id": "p", "variables": URL_PARTS},
    *({"id": "p", "variables": {"x": part}} for part in URL_PARTS),
]  # fmt: skip
WORDS: list[Any] = [None, "", " ", "Forget it.", OWN, ["Forget it."], {"text": "Forget it."}]
ODD = st.sampled_from([*CAPS, *VOICES, *REASONING, *MODELS, *HEARINGS, *TOOLS, *PROMPTS, *WORDS, *URL_PARTS, URL_PARTS])
NAMES = st.sampled_from(sorted(
    MEMBERS["ga"]["session"] | MEMBERS["ga"]["response"] | MEMBERS["beta"]["session"] | AUDIO["input"] | HEARING
    | FETCHED | {"Voice", "voice ", "MAX_OUTPUT_TOKENS", "max_tokens", "max_completion_tokens", "vo\u0456ce",
                 "mcp_servers", "input", "output", "temperature", "effort"}
))  # fmt: skip
PLACES: list[tuple[tuple[str, ...], list[Any]]] = [
    (("max_output_tokens",), CAPS), (("max_response_output_tokens",), CAPS), (("voice",), VOICES),
    (("audio", "output", "voice"), VOICES), (("reasoning",), REASONING), (("reasoning", "effort"), EFFORTS),
    (("model",), MODELS), (("input_audio_transcription",), HEARINGS), (("audio", "input", "transcription"), HEARINGS),
    (("audio", "input", "transcription", "model"), MODELS), (("tools",), TOOLS), (("prompt",), PROMPTS),
    (("instructions",), WORDS), (("audio",), WORDS), (("audio", "output"), VOICES), (("audio", "input"), HEARINGS),
]  # fmt: skip
"""Places of the limited fields, by their names in both dialects, and values to try there."""


def nest(path: tuple[str, ...], value: Any) -> Obj:
    for name in reversed(path):
        value = {name: value}
    return value  # type: ignore[no-any-return]


FIELDS = [nest(path, value) for path, values in PLACES for value in values]
_field = st.sampled_from(FIELDS)
_loose = st.dictionaries(NAMES, ODD, min_size=1, max_size=1)
_way = st.sampled_from(["input", "output"])
_deep = st.builds(lambda way, loose: {"audio": {way: loose}}, _way, _loose)
_settings = st.lists(st.one_of(_field, _field, _field, _loose, _deep), max_size=2).map(
    lambda fields: {key: value for one in fields for key, value in one.items()}
)

GOOD_PARTS = [{"type": "input_text", "text": "hi"}, {"type": "input_image", "image_url": "data:,x"}]
ODD_PARTS: list[Any] = [*([part] for part in URL_PARTS), *URL_PARTS, [[URL_PARTS[0]]], URL, None, {}]
ITEMS: list[Any] = [
    *({"type": "message", "role": "user", "content": parts} for parts in ODD_PARTS),
    *({"type": "function_call_output", "call_id": "c1", "output": parts} for parts in ODD_PARTS),
    *({"type": kind, "attachments": URL_PARTS} for kind in ("message", "function_call", "item_reference", "Message")),
    *({"type": "function_call", "name": "f", "arguments": parts} for parts in ODD_PARTS),
    {"type": "mcp_approval_response", "approval_request_id": "a", "approve": True}, MCP, {}, URL_PARTS,
]  # fmt: skip
_part = st.sampled_from([*GOOD_PARTS, *URL_PARTS])
_parts = st.lists(_part, min_size=1, max_size=2) | st.sampled_from([[[URL_PARTS[0]]], *URL_PARTS, "hi", None, {}])
_message = st.builds(lambda role, parts: {"type": "message", "role": role, "content": parts},
                     st.sampled_from(["user", "user", "assistant", "system", "User", ["user"]]), _parts)  # fmt: skip
_output = _parts.map(lambda output: {"type": "function_call_output", "call_id": "c1", "output": output})
_other = st.builds(
    lambda item, loose: item | loose,
    st.sampled_from([{"type": "message", "role": "user", "content": GOOD_PARTS}, {"type": "item_reference", "id": "i"},
                     {"type": "function_call", "name": "clock", "arguments": "{}"},
                     {"type": "mcp_approval_response", "approval_request_id": "a", "approve": True},
                     {"type": "Message", "role": "user", "content": URL_PARTS}, {"type": None}]),
    st.just({}) | _loose | _parts.map(lambda parts: {"attachments": parts}),
)  # fmt: skip
_item = _message | _output | _other
_input = st.lists(_item, min_size=1, max_size=2).map(lambda items: {"input": items})
_response = _settings | _input | st.builds(lambda some, more: some | more, _settings, _input)
_kinds = st.sampled_from(
    [*["session.update", "response.create", "conversation.item.create"] * 4,
     "transcription_session.update", "brand.new", "session.create", "conversation.item.update", "Session.Update",
     "input_audio_buffer.append", "response.cancel"]
)  # fmt: skip


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A client message; a member may occur twice."""
    kind = draw(_kinds)
    part = "item" if "item" in kind else "response" if kind.startswith("response") else "session"
    body = {"item": _item, "response": _response, "session": _settings}[part]
    members = [("type", kind), (part, draw(body))]
    if draw(st.integers(0, 9)) == 0:
        members.append((part, draw(body)))
    if draw(st.integers(0, 9)) == 0:
        members.append((draw(NAMES), draw(ODD)))
    return ("{" + ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in members) + "}").encode()


def frame(kind: str, part: str, value: Any) -> bytes:
    return json.dumps({"type": kind, part: value}).encode()


class Way:
    """A client, the relay and an upstream, each side in its dialect."""

    def __init__(self, client: str, upstream: str, policy: RealtimePolicy) -> None:
        numbers = itertools.count(1)
        is_beta = client == "beta", upstream == "beta"
        self.codec = ProxyCodec(
            BetaClientDialect() if is_beta[0] else None, BetaUpstreamDialect() if is_beta[1] else None
        )
        principal = Principal(policy=Policy(realtime=policy))
        self.session = RealtimeSession("rs_1", principal, (CLOCK, DICE), lambda: str(next(numbers)))
        self.upstream = Upstream(upstream)
        for kind in ("session.created", "session.updated"):
            body = {"type": kind, "session": {"type": "realtime"}}
            self.feed(RealtimeServerEvent(json.dumps(body).encode(), body))
        assert self.session.state.phase is Phase.READY

    def say(self, frame: bytes) -> None:
        if append_audio_bytes(frame) < 0:
            self.feed(self.codec.decode_client(frame))

    def feed(self, event: RealtimeClientEvent | InvalidClientMessage | RealtimeServerEvent) -> None:
        for command in self.session.handle(event, 0.0):
            if isinstance(command, SendToUpstream):
                for frame in self.codec.encode_for_upstream(command.body):
                    self.upstream.take(frame)


@pytest.mark.parametrize("upstream", ["ga", "beta"])
@pytest.mark.parametrize("client", ["ga", "beta"])
@pytest.mark.parametrize("drops", [False, True])
def test_no_field_or_item_by_itself_gets_around_the_policy(client: str, upstream: str, drops: bool) -> None:
    events = [
        *(frame("session.update", "session", field) for field in FIELDS),
        *(frame("transcription_session.update", "session", field) for field in FIELDS),
        *(frame("response.create", "response", field) for field in FIELDS),
        *(frame("conversation.item.create", "item", item) for item in ITEMS),
        *(frame("response.create", "response", {"input": [item]}) for item in ITEMS),
    ]
    for event in events:
        Way(client, upstream, POLICIES[drops]).say(event)


@pytest.mark.parametrize("upstream", ["ga", "beta"])
@pytest.mark.parametrize("client", ["ga", "beta"])
def test_no_event_gets_around_the_policy(client: str, upstream: str) -> None:
    passed = 0

    @settings(max_examples=150)
    @given(st.lists(frames(), min_size=2, max_size=6), st.booleans())
    def holds(said: list[bytes], drops: bool) -> None:
        nonlocal passed
        way = Way(client, upstream, POLICIES[drops])
        for frame in said:
            way.say(frame)
        passed += way.upstream.frames - 1

    holds()
    assert passed > 100, "too few events were forwarded for a meaningful test"
