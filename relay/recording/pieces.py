"""Texts that came in pieces, without what is to go: a number may begin in one delta and end in another."""

from collections.abc import Hashable
from typing import Any

from relay.core import events as ev
from relay.core.realtime_events import UpstreamSaid
from relay.recording.derive.normalize import parsed_event
from relay.recording.format.lines import Happened
from relay.recording.reader import Entry, Recording
from relay.recording.redaction import Redaction


def redacted_pieces(recording: Recording, wanted: Redaction) -> dict[int, str]:
    """By the number of its line, what each piece of a text is without what `wanted` takes out."""
    texts: dict[Hashable, list[tuple[int, str]]] = {}
    for entry in recording.entries():
        piece = _piece(entry)
        if piece is not None:
            key, text = piece
            texts.setdefault(key, []).append((entry.number, text))
    kept: dict[int, str] = {}
    for pieces in texts.values():
        without = wanted.pieces([text for _, text in pieces])
        kept.update((number, text) for (number, _), text in zip(pieces, without, strict=True))
    return kept


def _piece(entry: Entry) -> tuple[Hashable, str] | None:
    """The text that a line's event belongs to, and the piece of it."""
    event: Any = entry.line.event if isinstance(entry.line, Happened) else None
    if isinstance(event, ev.TextDelta):
        return (event.response_id, event.item_id, event.content_index), event.text
    if isinstance(event, ev.UserTranscript) and not event.final:
        return event.item_id, event.text
    if not isinstance(event, UpstreamSaid):
        return None
    body = event.body or parsed_event(event.raw)
    text = body.get("delta")
    if not isinstance(text, str):
        return None
    return tuple(str(body.get(name)) for name in ("type", "response_id", "item_id", "content_index")), text
