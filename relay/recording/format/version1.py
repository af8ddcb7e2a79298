"""Reads journals of format 1 into the lines of format 2.

In format 1 audio was an event, `Forwarded`, that the rules passed on as a command. Here it is a line of its own. All
else that the rules did at it becomes the commands of an `OutputStarted` before it. Names are those of format 1's
classes and fields, frozen: this table does not follow the code.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from relay.core import events as ev
from relay.json_types import JsonObject
from relay.recording.format import version2
from relay.recording.format.lines import Happened, InputAudio, Line, OutputAudio, SpeechAudio
from relay.recording.format.serialize import Vocabulary, to_json
from relay.recording.format.tags import COMMANDS, EVENTS, VALUES, Row
from relay.recording.format.version2 import count, done, happened, texts
from relay.recording.format.write import PASSED_ON

CLASSES: Final[Mapping[str, str]] = {
    "hello": "Hello", "playback": "Playback", "tool_result": "ToolResult", "user_text": "UserText", "commit": "Commit",
    "clear": "Clear", "interrupt": "Interrupt", "consent": "Consent", "bye": "Bye",
    "client_protocol_error": "ClientFault", "client_closed": "ClientClosed", "client_rate_limited": "ClientTooFast",
    "client_message_stalled": "MessageStalled", "client_backpressure": "ClientStuck",
    "upstream_opened": "UpstreamOpened", "upstream_refused": "UpstreamRefused", "upstream_closed": "UpstreamClosed",
    "upstream_backpressure": "UpstreamStuck", "session_created": "SessionCreated", "session_updated": "SessionUpdated",
    "speech_started": "SpeechStarted", "speech_stopped": "SpeechStopped", "input_committed": "InputCommitted",
    "input_cleared": "InputCleared", "user_transcript": "UserTranscript",
    "user_transcript_failed": "UserTranscriptFailed", "item_added": "ItemAdded", "item_deleted": "ItemDeleted",
    "item_truncated": "ItemTruncated", "response_created": "ResponseCreated", "output_item_added": "OutputItemAdded",
    "text_delta": "TextDelta", "text_done": "TextDone", "audio_done": "AudioDone", "response_done": "ResponseDone",
    "upstream_error": "UpstreamError", "unknown_upstream_event": "UnknownUpstream",
    "malformed_upstream_message": "MalformedUpstream", "voice_connected": "VoiceOpened", "voice_audio": "VoiceSpoke",
    "voice_context_done": "VoiceFinished", "voice_failed": "VoiceFailed", "deadline_reached": "Tick",
    "first_audio_sent": "AudioHanded", "playout_finished": "PlayedOut", "playout_cleared": "AudioDropped",
    "playout_overflow": "AudioOverflow", "tool_call_finished": "ToolReturned", "tool_call_progress": "ToolProgressed",
    "end_requested": "EndAsked", "server_draining": "Draining", "key_revoked": "KeyRevoked",
    "internal_failure": "Crashed", "client_event": "ClientSaid", "upstream_event": "UpstreamSaid",
    "invalid_client_message": "ClientBabbled",
    "configure_session": "ConfigureSession", "commit_input": "CommitInput", "clear_input": "ClearInput",
    "create_item": "CreateItem", "delete_item": "DeleteItem", "truncate_item": "TruncateItem",
    "create_response": "CreateResponse", "cancel_response": "CancelResponse", "close_upstream": "CloseUpstream",
    "send_connected": "TellConnected", "send_ready": "TellReady", "send_speech": "TellSpeech",
    "send_response_start": "TellResponseStart", "send_response_end": "TellResponseEnd", "send_text_delta": "TellText",
    "send_transcript": "TellTranscript", "send_tool": "TellTool", "send_tool_call": "TellToolCall",
    "send_interrupted": "TellInterrupted", "send_usage": "TellUsage", "send_latency": "TellLatency",
    "send_error": "TellError", "send_goodbye": "TellGoodbye", "close_client": "CloseClient",
    "audio_start": "PlayStart", "audio_end": "PlayEnd", "clear_playout": "DropAudio", "sync_playout": "SyncPlayhead",
    "apply_options": "UseOptions", "connect_voice": "OpenVoice", "speak_sentence": "SpeakText",
    "speak_text": "SpeakWhole", "finish_voice_context": "EndSpeech", "cancel_voice_context": "HushSpeech",
    "keep_voice_context": "KeepSpeech", "disconnect_voice": "CloseVoice", "run_tool": "RunTool",
    "cancel_tool": "CancelTool", "cancel_all_tools": "CancelTools", "send_to_client": "TellClient",
    "send_to_upstream": "TellUpstream", "forward_to_client": "PassDown",
}  # fmt: skip
"""The tags of format 2 and the names of format 1 for the same."""
FIELDS: Final[Mapping[str, Mapping[str, str]]] = {
    "hello": {"fields": "given"},
    "upstream_backpressure": {"fatal": "final"},
    "upstream_event": {"frame": "raw"},
    "playout_cleared": {"parts": "clips"},
    "configure_session": {"include_examples": "teach"},
    "forward_to_client": {"frame": "raw"},
    "sent_part": {"sent_ms": "handed_ms", "played_ms": "estimated_ms"},
}
"""The fields that had another name in format 1, by tag."""
_AUDIO: Final = "Forwarded"
_AS_IN_FORMAT_2: Final = frozenset({"in", "out", "voice", "words", "up", "down"})
_DELTA: Final = "response.output_audio.delta"


def row_of_format_1(row: Row) -> Row:
    """A row of the table with the names that format 1 had."""
    former = FIELDS.get(row.tag, {})
    fields = {name: former.get(stored, stored) for name, stored in row.fields.items()}
    return Row(row.kind, CLASSES.get(row.tag, row.tag), fields)


FORMAT_1: Final = Vocabulary(
    [row_of_format_1(row) for row in (*EVENTS, *COMMANDS) if row.tag in CLASSES], map(row_of_format_1, VALUES)
)


def read(line: JsonObject, now: float) -> list[Line]:
    """An event or audio, as one line or two of format 2. Raises ValueError naming what is wrong with it."""
    if "event" in line:
        return _event(line, now)
    if not line.keys() & _AS_IN_FORMAT_2:
        raise ValueError("there is none of event, in, out, voice, words, sent, gap, end in it")
    found = version2.read(line, now)
    match found:
        case Happened() if "words" not in line:
            return [_converted(found)]
        case InputAudio():
            return [*_besides(line, now, ev.Tick()), found]
        case OutputAudio():
            part = found.response_id, found.item_id, found.content_index
            event = ev.OutputStarted(*part) if found.frame is None else ev.Tick()
            return [*_besides(line, now, event), replace(found, discarded=done(line, (PASSED_ON,)) == ())]
        case SpeechAudio():
            return _speech(found)
    return [found]


def _besides(line: JsonObject, now: float, event: ev.Event) -> list[Line]:
    """What followed audio besides passing it on, as what followed `event`."""
    if line.get("raised") is not None:
        return [happened(line, now, event)]
    do = _commands(done(line, ()))
    return [Happened(now, event, do)] if do else []


def _speech(audio: SpeechAudio) -> list[Line]:
    do, is_heard = _commands(audio.do), any(map(_is_audio, audio.do))
    if is_heard or not do:
        return [replace(audio, discarded=not is_heard, do=do)]
    event = ev.VoiceSpoke(audio.context_id, audio.n_bytes, audio.alignment)
    return [replace(audio, discarded=True, do=()), Happened(audio.now, event, do)]


def _event(line: JsonObject, now: float) -> list[Line]:
    obj = line["event"]
    name = obj.get("t") if isinstance(obj, Mapping) else None
    if name == _AUDIO:  # its audio was no usual base64, or our own code failed at it
        return _besides(line, now, _started(obj))
    if name == CLASSES["voice_audio"]:
        obj = {member: value for member, value in obj.items() if member != "raw"}
    return [_converted(happened(line, now, FORMAT_1.from_json(obj)))]


def _started(obj: Mapping[str, Any]) -> ev.Event:
    if obj.get("kind") != "output_audio":
        return ev.Tick()
    item_id, response_id = texts(obj, "item_id", "response_id")
    return ev.OutputStarted(response_id, item_id, count(obj, "content_index"))


def _converted(line: Happened) -> Happened:
    return line if line.do is None else replace(line, do=_commands(line.do, keep=True))


def _commands(do: tuple[Any, ...], *, keep: bool = False) -> tuple[Any, ...]:
    """Commands as format 2 stores them, but for audio and events that were held back; `keep`: with "="."""
    commands: list[Any] = []
    for command in do:
        if command == PASSED_ON:
            commands += [command] if keep else []
        elif not _is_audio(command) and command.get("t") != CLASSES["forward_to_client"]:
            commands.append(to_json(FORMAT_1.from_json(command)))
    return tuple(commands)


def _is_audio(command: Any) -> bool:
    """Whether a command passed audio on: as it came, or in an event with another number in it."""
    if command == PASSED_ON:
        return True
    body = command.get("body")
    is_delta = isinstance(body, Mapping) and body.get("type") == _DELTA
    return command.get("t") == _AUDIO or (is_delta and command.get("t") == CLASSES["send_to_client"])
