"""The beta dialect of the Realtime protocol, translated to and from GA; nothing else in the relay knows it.

It has two uses. `BetaClientDialect` is for clients that speak beta (`OpenAI-Beta: realtime=v1`, Azure's preview path),
`BetaUpstreamDialect` for upstreams that do (Azure's preview endpoint). Event types, session fields, response fields and
content types are tables; anything that they do not name is unchanged. Events are never changed in place.

Fields of one dialect alone are dropped: `temperature` and `client_secret` of beta, some session fields of GA.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from relay.json_types import JsonEvent, JsonObject

MAX_OPEN_ITEMS = 256
"""Items in progress whose position and name are remembered until they are done; the oldest is forgotten."""

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
_BETA_FORMATS = {ga_format["type"]: name for name, ga_format in _GA_FORMATS.items()}
_NO_USAGE = {"type": "tokens", "input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
"""GA requires the usage of a transcription; it is zero for an upstream that reports none."""

ValueConverter = Callable[[Any], Any]


def _unchanged(value: Any) -> Any:
    return value


def _ga_format(value: Any) -> Any:
    return dict(_GA_FORMATS[value]) if isinstance(value, str) and value in _GA_FORMATS else value


def _beta_format(value: Any) -> Any:
    format_type = value.get("type") if isinstance(value, Mapping) else None
    return _BETA_FORMATS.get(format_type, value) if isinstance(format_type, str) else value


def _ga_modalities(value: Any) -> Any:
    """GA allows text or audio, never both; audio includes its transcript."""
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
"""Session fields: name in beta, path in GA, and the conversion of the value each way."""
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
    rows_by_name = {beta: (path, convert) for beta, path, convert, _ in rows}
    result: JsonObject = {key: value for key, value in obj.items() if key not in rows_by_name and key not in _BETA_ONLY}
    for key in obj.keys() & rows_by_name.keys():
        path, convert = rows_by_name[key]
        _set_at_path(result, path, convert(obj[key]))
    return result


def _to_beta(obj: Any, rows: tuple[_FieldRow, ...]) -> Any:
    if not isinstance(obj, Mapping):
        return obj
    moved_names = {path[0] for _, path, _, _ in rows}
    result: JsonObject = {key: value for key, value in obj.items() if key not in moved_names and key not in _GA_ONLY}
    for beta, path, _, convert in rows:
        member: Any = obj
        for key in path:
            if not isinstance(member, Mapping) or key not in member:
                break
            member = member[key]
        else:
            result[beta] = convert(member)
    return result


def _convert_item(item: Any, content_types: Mapping[str, str]) -> Any:
    """Return an item with its content types converted; only the assistant's have other names."""
    if not isinstance(item, Mapping) or item.get("role") != "assistant" or not isinstance(item.get("content"), list):
        return item
    return {**item, "content": [_convert_part(part, content_types) for part in item["content"]]}


def _convert_part(part: Any, content_types: Mapping[str, str]) -> Any:
    old_type = part.get("type") if isinstance(part, Mapping) else None
    new_type = content_types.get(old_type) if isinstance(old_type, str) else None
    return part if new_type is None else {**part, "type": new_type}


def _convert_member(obj: JsonEvent, key: str, convert: ValueConverter) -> JsonEvent:
    return {**obj, key: convert(obj[key])} if key in obj else obj


def _convert_event_item(event: JsonEvent, content_types: Mapping[str, str]) -> JsonEvent:
    return _convert_member(event, "item", lambda item: _convert_item(item, content_types))


def client_event_to_ga(event: JsonEvent) -> JsonEvent:
    """Translate a client event from beta to GA."""
    event_type = event.get("type")
    if event_type == "session.update":
        return _convert_member(event, "session", partial(_session_to_ga, "realtime"))
    if event_type == "transcription_session.update":
        converted_event = _convert_member(event, "session", partial(_session_to_ga, "transcription"))
        # A transcription session has no output.
        return {**_convert_member(converted_event, "session", _remove_modalities), "type": "session.update"}
    if event_type == "response.create":
        return _convert_response(event, _to_ga, RESPONSE_CREATE_FIELDS, "input", _GA_CONTENT)
    return _convert_event_item(event, _GA_CONTENT)


def client_event_to_beta(event: JsonEvent) -> JsonEvent:
    """Translate a client event from GA to beta."""
    event_type = event.get("type")
    if event_type == "session.update":
        return _session_to_beta(event)
    if event_type == "response.create":
        return _convert_response(event, _to_beta, RESPONSE_CREATE_FIELDS, "input", _BETA_CONTENT)
    return _convert_event_item(event, _BETA_CONTENT)


def _session_to_ga(session_type: str, session: Any) -> Any:
    is_session = isinstance(session, Mapping)
    return {"type": session_type, **_to_ga(session, SESSION_FIELDS)} if is_session else session


def _remove_modalities(session: Any) -> Any:
    is_session = isinstance(session, Mapping)
    return {key: value for key, value in session.items() if key != "output_modalities"} if is_session else session


def _session_to_beta(event: JsonEvent) -> JsonEvent:
    """Translate `session.update` or `session.updated`; beta has other types for transcription sessions."""
    session = event.get("session")
    is_transcription = isinstance(session, Mapping) and session.get("type") == "transcription"
    converted_event = _convert_member(event, "session", lambda session: _to_beta(session, SESSION_FIELDS))
    return {**converted_event, "type": f"transcription_{event['type']}"} if is_transcription else converted_event


def _convert_response(
    event: JsonEvent,
    translate: Callable[[Any, tuple[_FieldRow, ...]], Any],
    rows: tuple[_FieldRow, ...],
    items_key: str,
    content_types: Mapping[str, str],
) -> JsonEvent:
    """Convert the response in an event, or the settings of one, with its list of items."""
    changed = _convert_member(event, "response", lambda response: translate(response, rows))
    response = changed.get("response")
    if not isinstance(response, Mapping) or not isinstance(response.get(items_key), list):
        return changed
    items = [_convert_item(item, content_types) for item in response[items_key]]
    return {**changed, "response": {**response, items_key: items}}


class BetaClientDialect:
    """Translates for a client that speaks beta."""

    renamed_server_events = BETA_EVENT_TYPES

    def to_upstream(self, event: JsonEvent) -> list[JsonEvent]:
        """Translate a client event to GA."""
        return [client_event_to_ga(event)]

    def to_client(self, event: JsonEvent) -> list[JsonEvent]:
        """Translate a server event to beta: one event, or none if beta does not have it."""
        event_type = event.get("type")
        if not isinstance(event_type, str):
            return [event]
        if event_type in self.renamed_server_events:
            return [{**event, "type": self.renamed_server_events[event_type]}]
        if event_type == "conversation.item.added":
            return [{**_convert_event_item(event, _BETA_CONTENT), "type": "conversation.item.created"}]
        if event_type == "conversation.item.done":
            return []
        if event_type == "session.created":
            return [_convert_member(event, "session", lambda session: _to_beta(session, SESSION_FIELDS))]
        if event_type == "session.updated":
            return [_session_to_beta(event)]
        if event_type in ("response.created", "response.done"):
            return [_convert_response(event, _to_beta, RESPONSE_FIELDS, "output", _BETA_CONTENT)]
        if event_type == "response.function_call_arguments.done":
            return [{key: value for key, value in event.items() if key != "name"}]
        return [_convert_event_item(event, _BETA_CONTENT)]


class BetaUpstreamDialect:
    """Translates for an upstream that speaks beta.

    It remembers of items in progress what beta leaves out: their position, for `conversation.item.done`, and the name
    of a function, for `response.function_call_arguments.done`.
    """

    renamed_server_events = GA_EVENT_TYPES

    def __init__(self) -> None:
        self._open_items: OrderedDict[str, JsonObject] = OrderedDict()

    def to_upstream(self, event: JsonEvent) -> list[JsonEvent]:
        """Translate a client event to beta."""
        return [client_event_to_beta(event)]

    def to_client(self, event: JsonEvent) -> list[JsonEvent]:
        """Translate a server event to GA."""
        event_type = event.get("type")
        if not isinstance(event_type, str):
            return [event]
        if event_type in self.renamed_server_events:
            return [{**event, "type": self.renamed_server_events[event_type]}]
        if event_type in ("session.created", "session.updated", "transcription_session.updated"):
            session_type = "transcription" if event_type.startswith("transcription") else "realtime"
            changed = _convert_member(event, "session", partial(_session_to_ga, session_type))
            return [{**changed, "type": event_type.removeprefix("transcription_")}]
        if event_type in ("response.created", "response.done"):
            return [_convert_response(event, _to_ga, RESPONSE_FIELDS, "output", _GA_CONTENT)]
        if event_type == "conversation.item.created":
            return self._item_created_to_beta(event)
        if event_type in ("response.output_item.added", "response.output_item.done"):
            return self._output_item_to_beta(event)
        if event_type == "response.function_call_arguments.done" and "name" not in event:
            return [{**event, "name": self._open_items.get(str(event.get("item_id")), {}).get("name", "")}]
        if event_type == "conversation.item.input_audio_transcription.completed" and event.get("usage") is None:
            return [{**event, "usage": dict(_NO_USAGE)}]
        return [_convert_event_item(event, _GA_CONTENT)]

    def _item_created_to_beta(self, event: JsonEvent) -> list[JsonEvent]:
        changed = _convert_event_item(event, _GA_CONTENT)
        item, previous = event.get("item"), event.get("previous_item_id")
        added_event: JsonEvent = {**changed, "type": "conversation.item.added"}
        if isinstance(item, Mapping) and item.get("status") == "in_progress":
            self._remember_item(item.get("id"), {"previous_item_id": previous})
            return [added_event]
        return [added_event, _item_done_event(event, changed.get("item"), previous)]

    def _output_item_to_beta(self, event: JsonEvent) -> list[JsonEvent]:
        changed, item = _convert_event_item(event, _GA_CONTENT), event.get("item")
        if not isinstance(item, Mapping):
            return [changed]
        if event["type"] == "response.output_item.added":
            self._remember_item(item.get("id"), {"name": item.get("name") or ""})
            return [changed]
        known_fields = self._open_items.pop(str(item.get("id")), {})
        if "previous_item_id" not in known_fields:
            return [changed]  # out-of-band, or complete from the start
        return [changed, _item_done_event(event, changed.get("item"), known_fields["previous_item_id"])]

    def _remember_item(self, item_id: Any, members: JsonObject) -> None:
        if isinstance(item_id, str):
            self._open_items[item_id] = self._open_items.get(item_id, {}) | members
            if len(self._open_items) > MAX_OPEN_ITEMS:
                self._open_items.popitem(last=False)


def _item_done_event(event: JsonEvent, item: Any, previous: Any) -> JsonObject:
    """Return `conversation.item.done`, which beta does not have; its id is derived from the original event's."""
    event_id = f"{event.get('event_id') or 'event'}_done"
    return {"type": "conversation.item.done", "event_id": event_id, "previous_item_id": previous, "item": item}
