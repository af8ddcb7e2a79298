"""Encode a journal record that was read as a line of format 2."""

from relay.recording.format import write
from relay.recording.format.records import (
    AudioEnvelope,
    EndRecord,
    EventRecord,
    GapRecord,
    InputAudioRecord,
    JournalRecord,
    OutputAudioRecord,
    SentAudioRecord,
    TtsAudioRecord,
)
from relay.recording.format.serialize import to_json
from relay.session.device.commands import SendTextDelta
from relay.session.device.events import TextDelta


def encode_record(record: JournalRecord) -> bytes:
    """Encode a record in format 2."""
    match record:
        case EventRecord():
            return _encode_event(record)
        case InputAudioRecord(now, n_bytes, envelope):
            return write.redacted_line({"now": now, "in": n_bytes, **_encode_envelope(envelope)})
        case OutputAudioRecord(envelope=None):
            part = record.response_id, record.item_id, record.content_index
            return write.output_line(record.time_s, record.n_bytes, *part, record.discarded)
        case OutputAudioRecord(now, n_bytes, discarded=discarded, envelope=envelope):
            return write.redacted_line(
                {
                    "now": now,
                    "out": n_bytes,
                    **_encode_envelope(envelope),
                    **({"discarded": True} if discarded else {}),
                }
            )
        case TtsAudioRecord(now, n_bytes, context_id, alignment, discarded, stored_commands):
            stored = write.parse_json(write.tts_audio_line(now, n_bytes, context_id, alignment, (), discarded))
            return write.redacted_line(stored | ({"do": list(stored_commands)} if stored_commands else {}))
        case SentAudioRecord(now, n_bytes, crc, is_stored):
            return write.sent_audio_line(now, n_bytes, crc, is_stored=is_stored)
        case GapRecord():
            return write.gap_line(record)
        case EndRecord(now, reason):
            return write.end_line(now, reason)


def _encode_event(record: EventRecord) -> bytes:
    event, stored_commands = record.event, None if record.stored_commands is None else list(record.stored_commands)
    if isinstance(event, TextDelta) and stored_commands == [to_json(SendTextDelta(event.text))]:
        return write.text_line(event, record.time_s, (SendTextDelta(event.text),))
    return write.redacted_line(write.stored_event_object(event, record.time_s, stored_commands, record.raised or "")[0])


def _encode_envelope(envelope: AudioEnvelope | None) -> dict[str, str]:
    return {} if envelope is None or envelope == AudioEnvelope() else {"head": envelope.prefix, "tail": envelope.suffix}
