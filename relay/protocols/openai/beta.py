"""The Realtime protocol's beta dialect, translated from and to GA: nothing else in the relay knows of it.

Two users: `BetaClientDialect` stands before a client that speaks beta (`OpenAI-Beta: realtime=v1`, Azure's preview
path), and `BetaUpstreamDialect` before an upstream that does (Azure's preview endpoint). Names, session and response
fields and content types are tables; what a table does not name goes on as it is. Events are JSON objects and are never
changed in place. GA has what beta has not: `temperature` and `client_secret` are dropped upwards, GA's own session
fields downwards.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from relay.json_types import JsonObject

JsonEvent = Mapping[str, Any]

MAX_OPEN_ITEMS = 256
"""Items under way whose place and name are remembered until they are done; the oldest are forgotten."""

GA_EVENT_TYPES = {
    "response.audio.delta": "response.output_audio.delta",
    "response.audio.done": "response.output_audio.done",
    "response.audio_transcript.delta": "response.output_audio_transcript.delta",
    "response.audio_transcript.done": "response.output_audio_transcript.done",
    "response.text.delta": "response.output_text.delta",
    "response.text.done": "response.output_text.done",
}
BETA_EVENT_TYPES = {ga: beta for beta, ga in GA_EVENT_TYPES.items()}

_GA_CONTENT = {"text": "output_text", "audio": "output_audio"}
_BETA_CONTENT = {ga: beta for beta, ga in _GA_CONTENT.items()}
_GA_FORMATS: dict[str, JsonObject] = {
    "pcm16": {"type": "audio/pcm", "rate": 24000},
    "g711_ulaw": {"type": "audio/pcmu"},
    "g711_alaw": {"type": "audio/pcma"},
}
_BETA_FORMATS = {shape["type"]: name for name, shape in _GA_FORMATS.items()}
_NO_USAGE = {"type": "tokens", "input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
"""GA requires the usage of a transcription; an upstream that does not tell it is taken to have none."""

ValueConverter = Callable[[Any], Any]


def _unchanged(value: Any) -> Any:
    return value


def _ga_format(value: Any) -> Any:
    return dict(_GA_FORMATS[value]) if isinstance(value, str) and value in _GA_FORMATS else value


def _beta_format(value: Any) -> Any:
    kind = value.get("type") if isinstance(value, Mapping) else None
    return _BETA_FORMATS.get(kind, value) if isinstance(kind, str) else value


def _ga_modalities(value: Any) -> Any:
    """GA speaks or writes, never both; speech brings its transcript along."""
    return (["audio"] if "audio" in value else ["text"]) if isinstance(value, list) else value


def _beta_modalities(value: Any) -> Any:
    return ["audio", "text"] if isinstance(value, list) and "audio" in value else value


_FieldRow = tuple[str, tuple[str, ...], ValueConverter, ValueConverter]
_INPUT_PATH, _OUTPUT_PATH = ("audio", "input"), ("audio", "output")

SESSION_FIELDS: tuple[_FieldRow, ...] = (
    ("modalities", ("output_modalities",), _ga_modalities, _beta_modalities),
    ("voice", (*_OUTPUT_PATH, "voice"), _unchanged, _unchanged),
    ("speed", (*_OUTPUT_PATH, "speed"), _unchanged, _unchanged),
    ("output_audio_format", (*_OUTPUT_PATH, "format"), _ga_format, _beta_format),
    ("input_audio_format", (*_INPUT_PATH, "format"), _ga_format, _beta_format),
    ("input_audio_transcription", (*_INPUT_PATH, "transcription"), _unchanged, _unchanged),
    ("input_audio_noise_reduction", (*_INPUT_PATH, "noise_reduction"), _unchanged, _unchanged),
    ("turn_detection", (*_INPUT_PATH, "turn_detection"), _unchanged, _unchanged),
    ("max_response_output_tokens", ("max_output_tokens",), _unchanged, _unchanged),
)
"""Session fields: name in beta, path in GA, and how the value changes each way."""
RESPONSE_CREATE_FIELDS: tuple[_FieldRow, ...] = (*SESSION_FIELDS[:2], SESSION_FIELDS[3], SESSION_FIELDS[8])
RESPONSE_FIELDS: tuple[_FieldRow, ...] = RESPONSE_CREATE_FIELDS[:3]

_BETA_ONLY = frozenset({"temperature", "client_secret"})
_GA_ONLY = frozenset({"type", "truncation", "reasoning", "parallel_tool_calls"})


def _set_at_path(obj: JsonObject, path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        inner = obj.get(key)
        obj[key] = dict(inner) if isinstance(inner, Mapping) else {}
        obj = obj[key]
    obj[path[-1]] = value


def _to_ga(obj: Any, rows: tuple[_FieldRow, ...]) -> Any:
    if not isinstance(obj, Mapping):
        return obj
    named = {beta: (path, convert) for beta, path, convert, _ in rows}
    result: JsonObject = {key: value for key, value in obj.items() if key not in named and key not in _BETA_ONLY}
    for key in obj.keys() & named.keys():
        path, convert = named[key]
        _set_at_path(result, path, convert(obj[key]))
    return result


def _to_beta(obj: Any, rows: tuple[_FieldRow, ...]) -> Any:
    if not isinstance(obj, Mapping):
        return obj
    moved = {path[0] for _, path, _, _ in rows}
    result: JsonObject = {key: value for key, value in obj.items() if key not in moved and key not in _GA_ONLY}
    for beta, path, _, convert in rows:
        found: Any = obj
        for key in path:
            if not isinstance(found, Mapping) or key not in found:
                break
            found = found[key]
        else:
            result[beta] = convert(found)
    return result


def _item(item: Any, content_types: Mapping[str, str]) -> Any:
    """An item with its content parts called otherwise; only the assistant's are."""
    if not isinstance(item, Mapping) or item.get("role") != "assistant" or not isinstance(item.get("content"), list):
        return item
    return {**item, "content": [_part(part, content_types) for part in item["content"]]}


def _part(part: Any, content_types: Mapping[str, str]) -> Any:
    kind = part.get("type") if isinstance(part, Mapping) else None
    return {**part, "type": content_types[kind]} if isinstance(kind, str) and kind in content_types else part


def _convert_member(obj: JsonEvent, key: str, change: ValueConverter) -> JsonEvent:
    return {**obj, key: change(obj[key])} if key in obj else obj


def _convert_item(event: JsonEvent, content_types: Mapping[str, str]) -> JsonEvent:
    return _convert_member(event, "item", lambda item: _item(item, content_types))


def client_event_to_ga(event: JsonEvent) -> JsonEvent:
    """A client's event, beta to GA."""
    kind = event.get("type")
    if kind == "session.update":
        return _convert_member(
            event, "session", lambda session: _with_type(_to_ga(session, SESSION_FIELDS), "realtime")
        )
    if kind == "transcription_session.update":
        changed = _convert_member(
            event,
            "session",
            lambda session: _with_type(_without_modalities(_to_ga(session, SESSION_FIELDS)), "transcription"),
        )
        return {**changed, "type": "session.update"}
    if kind == "response.create":
        return _convert_member(
            event, "response", partial(_convert_response, _to_ga, RESPONSE_CREATE_FIELDS, "input", _GA_CONTENT)
        )
    return _convert_item(event, _GA_CONTENT)


def client_event_to_beta(event: JsonEvent) -> JsonEvent:
    """A client's event, GA to beta."""
    kind = event.get("type")
    if kind == "session.update":
        return _session_to_beta(event)
    if kind == "response.create":
        return _convert_member(
            event, "response", partial(_convert_response, _to_beta, RESPONSE_CREATE_FIELDS, "input", _BETA_CONTENT)
        )
    return _convert_item(event, _BETA_CONTENT)


def _with_type(session: Any, kind: str) -> Any:
    return {"type": kind, **session} if isinstance(session, Mapping) else session


def _without_modalities(session: Any) -> Any:
    """A transcription session has no output at all."""
    is_session = isinstance(session, Mapping)
    return {key: value for key, value in session.items() if key != "output_modalities"} if is_session else session


def _session_to_beta(event: JsonEvent) -> JsonEvent:
    """`session.update` or `session.updated`; those of a transcription session are called otherwise."""
    session = event.get("session")
    is_transcription = isinstance(session, Mapping) and session.get("type") == "transcription"
    changed = _convert_member(event, "session", lambda session: _to_beta(session, SESSION_FIELDS))
    return {**changed, "type": f"transcription_{event['type']}"} if is_transcription else changed


def _convert_response(
    translate: Callable[[Any, tuple[_FieldRow, ...]], Any],
    rows: tuple[_FieldRow, ...],
    items: str,
    content_types: Mapping[str, str],
    response: Any,
) -> Any:
    """A response, or what is asked of one, with its list of `items`."""
    changed = translate(response, rows)
    if not isinstance(changed, dict) or not isinstance(changed.get(items), list):
        return changed
    return {**changed, items: [_item(item, content_types) for item in changed[items]]}


class BetaClientDialect:
    """A client that speaks beta: its events become GA, what it is sent becomes beta."""

    renamed_server_events = BETA_EVENT_TYPES

    def to_upstream(self, event: JsonEvent) -> list[JsonEvent]:
        """What the client said, in GA."""
        return [client_event_to_ga(event)]

    def to_client(self, event: JsonEvent) -> list[JsonEvent]:
        """What the client is told, in beta: one event, or none where beta has no such thing."""
        kind = event.get("type")
        if not isinstance(kind, str):
            return [event]
        if kind in self.renamed_server_events:
            return [{**event, "type": self.renamed_server_events[kind]}]
        if kind == "conversation.item.added":
            return [{**_convert_item(event, _BETA_CONTENT), "type": "conversation.item.created"}]
        if kind == "conversation.item.done":
            return []
        if kind == "session.created":
            return [_convert_member(event, "session", lambda session: _to_beta(session, SESSION_FIELDS))]
        if kind == "session.updated":
            return [_session_to_beta(event)]
        if kind in ("response.created", "response.done"):
            return [
                _convert_member(
                    event, "response", partial(_convert_response, _to_beta, RESPONSE_FIELDS, "output", _BETA_CONTENT)
                )
            ]
        if kind == "response.function_call_arguments.done":
            return [{key: value for key, value in event.items() if key != "name"}]
        return [_convert_item(event, _BETA_CONTENT)]


class BetaUpstreamDialect:
    """An upstream that speaks beta.

    It remembers of items under way what beta leaves out: their place, for `conversation.item.done`, and the name of a
    function, for `response.function_call_arguments.done`.
    """

    renamed_server_events = GA_EVENT_TYPES

    def __init__(self) -> None:
        self._open_items: OrderedDict[str, JsonObject] = OrderedDict()

    def to_upstream(self, event: JsonEvent) -> list[JsonEvent]:
        """What the upstream is told, in beta."""
        return [client_event_to_beta(event)]

    def to_client(self, event: JsonEvent) -> list[JsonEvent]:
        """What the upstream said, in GA."""
        kind = event.get("type")
        if not isinstance(kind, str):
            return [event]
        if kind in self.renamed_server_events:
            return [{**event, "type": self.renamed_server_events[kind]}]
        if kind in ("session.created", "session.updated", "transcription_session.updated"):
            tag = "transcription" if kind.startswith("transcription") else "realtime"
            changed = _convert_member(
                event, "session", lambda session: _with_type(_to_ga(session, SESSION_FIELDS), tag)
            )
            return [{**changed, "type": kind.removeprefix("transcription_")}]
        if kind in ("response.created", "response.done"):
            return [
                _convert_member(
                    event, "response", partial(_convert_response, _to_ga, RESPONSE_FIELDS, "output", _GA_CONTENT)
                )
            ]
        if kind == "conversation.item.created":
            return self._item_created(event)
        if kind in ("response.output_item.added", "response.output_item.done"):
            return self._output_item(event)
        if kind == "response.function_call_arguments.done" and "name" not in event:
            return [{**event, "name": self._open_items.get(str(event.get("item_id")), {}).get("name", "")}]
        if kind == "conversation.item.input_audio_transcription.completed" and event.get("usage") is None:
            return [{**event, "usage": dict(_NO_USAGE)}]
        return [_convert_item(event, _GA_CONTENT)]

    def _item_created(self, event: JsonEvent) -> list[JsonEvent]:
        changed = _convert_item(event, _GA_CONTENT)
        item, previous = event.get("item"), event.get("previous_item_id")
        added: JsonEvent = {**changed, "type": "conversation.item.added"}
        if isinstance(item, Mapping) and item.get("status") == "in_progress":
            self._remember_item(item.get("id"), {"previous_item_id": previous})
            return [added]
        return [added, _item_done_event(event, changed.get("item"), previous)]

    def _output_item(self, event: JsonEvent) -> list[JsonEvent]:
        changed, item = _convert_item(event, _GA_CONTENT), event.get("item")
        if not isinstance(item, Mapping):
            return [changed]
        if event["type"] == "response.output_item.added":
            self._remember_item(item.get("id"), {"name": item.get("name") or ""})
            return [changed]
        kept = self._open_items.pop(str(item.get("id")), {})
        if "previous_item_id" not in kept:
            return [changed]  # created outside the conversation, or complete from the start
        return [changed, _item_done_event(event, changed.get("item"), kept["previous_item_id"])]

    def _remember_item(self, item_id: Any, known: JsonObject) -> None:
        if isinstance(item_id, str):
            self._open_items[item_id] = self._open_items.get(item_id, {}) | known
            if len(self._open_items) > MAX_OPEN_ITEMS:
                self._open_items.popitem(last=False)


def _item_done_event(event: JsonEvent, item: Any, previous: Any) -> JsonObject:
    """`conversation.item.done`, which beta has not; its id tells which event it was made of."""
    event_id = f"{event.get('event_id') or 'event'}_done"
    return {"type": "conversation.item.done", "event_id": event_id, "previous_item_id": previous, "item": item}
