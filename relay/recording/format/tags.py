"""The stored names of format 2: one row for each event, each command and each value that they hold.

A row names the class, its tag, and for each field the name it is stored under. A stored name never changes: recordings
hold it. To rename a class or a field, change the Python side of its row, and nothing else.

Adding a row, or a field that has a default, keeps older recordings readable. All else needs a new format.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from audio.formats import AudioFormat
from relay.core import commands as cmd
from relay.core import events as ev
from relay.core import realtime_events as rt
from relay.core.limits import SessionLimits
from relay.core.policy import Policy, RealtimePolicy
from relay.core.values import (
    Alignment,
    ClipHanded,
    DeviceOptions,
    Item,
    SessionConfig,
    SpeechRules,
    ToolSpec,
    TurnDetection,
    Usage,
)


class Row(NamedTuple):
    """One class and how it is stored; `fields` maps the names of Python to the stored ones."""

    kind: type
    tag: str
    fields: Mapping[str, str]


def _row(kind: Any, tag: str, /, **fields: str) -> Row:
    return Row(kind, tag, fields)


EVENTS = (
    # from a device client
    _row(
        ev.Hello, "hello", given="fields", input="input", output="output", max_ahead_ms="max_ahead_ms", voice="voice",
        instructions="instructions", language="language", turn="turn", half_duplex="half_duplex", tools="tools",
        consent="consent",
    ),
    _row(ev.Playback, "playback", item_id="item_id", played_ms="played_ms"),
    _row(ev.ToolResult, "tool_result", call_id="call_id", output="output", failed="failed"),
    _row(ev.UserText, "user_text", text="text"),
    _row(ev.Commit, "commit"),
    _row(ev.Clear, "clear"),
    _row(ev.Interrupt, "interrupt"),
    _row(ev.Consent, "consent", consent="consent"),
    _row(ev.Bye, "bye"),
    _row(ev.ClientFault, "client_protocol_error", code="code", message="message", field="field"),
    # from any client
    _row(ev.ClientClosed, "client_closed", code="code", reason="reason"),
    _row(ev.ClientTooFast, "client_rate_limited", what="what"),
    _row(ev.MessageStalled, "client_message_stalled"),
    _row(ev.ClientStuck, "client_backpressure", unsent_bytes="unsent_bytes"),
    # from the upstream
    _row(ev.UpstreamOpened, "upstream_opened"),
    _row(ev.UpstreamRefused, "upstream_refused", status="status", message="message", retryable="retryable"),
    _row(ev.UpstreamClosed, "upstream_closed", code="code", reason="reason"),
    _row(ev.UpstreamStuck, "upstream_backpressure", dropped_bytes="dropped_bytes", final="fatal"),
    _row(ev.SessionCreated, "session_created", model="model", engine="engine", expires_at="expires_at"),
    _row(ev.SessionUpdated, "session_updated", silence_ms="silence_ms"),
    _row(ev.SpeechStarted, "speech_started", item_id="item_id", audio_start_ms="audio_start_ms"),
    _row(ev.SpeechStopped, "speech_stopped", item_id="item_id", audio_end_ms="audio_end_ms"),
    _row(ev.InputCommitted, "input_committed", item_id="item_id", previous_item_id="previous_item_id"),
    _row(ev.InputCleared, "input_cleared"),
    _row(ev.UserTranscript, "user_transcript", item_id="item_id", text="text", final="final"),
    _row(ev.UserTranscriptFailed, "user_transcript_failed", item_id="item_id", message="message"),
    _row(ev.ItemAdded, "item_added", item="item", previous_item_id="previous_item_id"),
    _row(ev.ItemDeleted, "item_deleted", item_id="item_id"),
    _row(ev.ItemTruncated, "item_truncated", item_id="item_id", audio_end_ms="audio_end_ms"),
    _row(ev.ResponseCreated, "response_created", response_id="response_id", request_id="request_id"),
    _row(ev.OutputItemAdded, "output_item_added", response_id="response_id", item="item"),
    _row(
        ev.TextDelta, "text_delta", response_id="response_id", item_id="item_id", content_index="content_index",
        text="text", spoken="spoken",
    ),
    _row(
        ev.TextDone, "text_done", response_id="response_id", item_id="item_id", content_index="content_index",
        text="text", spoken="spoken",
    ),
    _row(
        ev.OutputStarted, "output_started", response_id="response_id", item_id="item_id",
        content_index="content_index",
    ),
    _row(ev.AudioDone, "audio_done", response_id="response_id", item_id="item_id", content_index="content_index"),
    _row(
        ev.ResponseDone, "response_done", response_id="response_id", status="status", reason="reason",
        error_code="error_code", error_message="error_message", output="output", usage="usage",
        request_id="request_id",
    ),
    _row(
        ev.UpstreamError, "upstream_error", code="code", message="message", type="type", param="param",
        event_id="event_id",
    ),
    _row(ev.UnknownUpstream, "unknown_upstream_event", type="type", known="known"),
    _row(ev.MalformedUpstream, "malformed_upstream_message", what="what"),
    # from an external voice
    _row(ev.VoiceOpened, "voice_connected"),
    _row(ev.VoiceSpoke, "voice_audio", context_id="context_id", n_bytes="n_bytes", alignment="alignment"),
    _row(ev.VoiceFinished, "voice_context_done", context_id="context_id"),
    _row(
        ev.VoiceFailed, "voice_failed", message="message", code="code", retryable="retryable", context_id="context_id"
    ),
    # from the relay itself
    _row(ev.Tick, "deadline_reached"),
    _row(ev.AudioHanded, "first_audio_sent", item_id="item_id"),
    _row(ev.PlayedOut, "playout_finished"),
    _row(ev.AudioDropped, "playout_cleared", clips="parts"),
    _row(ev.AudioOverflow, "playout_overflow", item_id="item_id", dropped_ms="dropped_ms"),
    _row(
        ev.ToolReturned, "tool_call_finished", call_id="call_id", status="status", output="output", ms="ms",
        arguments="arguments", for_client="for_client",
    ),
    _row(ev.ToolProgressed, "tool_call_progress", call_id="call_id", text="text", ms="ms"),
    _row(ev.EndAsked, "end_requested", call_id="call_id", reason="reason"),
    _row(ev.Draining, "server_draining", reason="reason"),
    _row(ev.KeyRevoked, "key_revoked"),
    _row(ev.Crashed, "internal_failure", where="where"),
    # of a Realtime client's session; the first two have lines of their own
    _row(rt.ClientSaid, "client_event", body="body"),
    _row(rt.UpstreamSaid, "upstream_event", raw="frame", body="body"),
    _row(
        rt.ClientBabbled, "invalid_client_message", message="message", code="code", param="param", event_id="event_id"
    ),
)  # fmt: skip

COMMANDS = (
    # to the upstream
    _row(cmd.ConfigureSession, "configure_session", config="config", event_id="event_id", teach="include_examples"),
    _row(cmd.CommitInput, "commit_input", event_id="event_id"),
    _row(cmd.ClearInput, "clear_input", event_id="event_id"),
    _row(cmd.CreateItem, "create_item", item="item", event_id="event_id", after="after"),
    _row(cmd.DeleteItem, "delete_item", item_id="item_id", event_id="event_id"),
    _row(
        cmd.TruncateItem, "truncate_item", item_id="item_id", content_index="content_index",
        audio_end_ms="audio_end_ms", event_id="event_id",
    ),
    _row(cmd.CreateResponse, "create_response", event_id="event_id", allow_tools="allow_tools"),
    _row(cmd.CancelResponse, "cancel_response", response_id="response_id", event_id="event_id"),
    _row(cmd.CloseUpstream, "close_upstream"),
    # to a device client
    _row(cmd.TellConnected, "send_connected", session_id="session_id", options="options"),
    _row(cmd.TellReady, "send_ready", options="options", config="config"),
    _row(cmd.TellSpeech, "send_speech", started="started"),
    _row(cmd.TellResponseStart, "send_response_start"),
    _row(cmd.TellResponseEnd, "send_response_end", final_text="final_text", status="status", more="more"),
    _row(cmd.TellText, "send_text_delta", text="text"),
    _row(
        cmd.TellTranscript, "send_transcript", role="role", item_id="item_id", order="order", text="text",
        final="final",
    ),
    _row(
        cmd.TellTool, "send_tool", call_id="call_id", name="name", status="status", ms="ms", arguments="arguments",
        output="output", text="text",
    ),
    _row(
        cmd.TellToolCall, "send_tool_call", call_id="call_id", name="name", arguments="arguments",
        timeout_ms="timeout_ms",
    ),
    _row(
        cmd.TellInterrupted, "send_interrupted", item_id="item_id", played_ms="played_ms", heard_text="heard_text",
        estimated="estimated",
    ),
    _row(cmd.TellUsage, "send_usage", usage="usage"),
    _row(
        cmd.TellLatency, "send_latency", item_id="item_id", speech_stopped_ms="speech_stopped_ms",
        first_delta_ms="first_delta_ms", first_byte_ms="first_byte_ms", first_played_ms="first_played_ms",
        total_ms="total_ms", first_text_ms="first_text_ms", voice_ms="voice_ms",
    ),
    _row(cmd.TellError, "send_error", code="code", message="message", field="field", retryable="retryable"),
    _row(cmd.TellGoodbye, "send_goodbye", reason="reason"),
    _row(cmd.CloseClient, "close_client", code="code", reason="reason"),
    # to the playout
    _row(cmd.PlayStart, "audio_start", item_id="item_id", content_index="content_index"),
    _row(cmd.PlayEnd, "audio_end", item_id="item_id", content_index="content_index", total_ms="total_ms"),
    _row(cmd.DropAudio, "clear_playout"),
    _row(cmd.SyncPlayhead, "sync_playout", item_id="item_id", played_ms="played_ms"),
    _row(cmd.UseOptions, "apply_options", options="options"),
    # to the uplink
    _row(cmd.SetInputGate, "set_input_gate", gate="gate"),
    _row(cmd.ReleaseInput, "release_input", until_bytes="until_bytes"),
    # to an external voice
    _row(cmd.OpenVoice, "connect_voice", voice_id="voice_id", output="output"),
    _row(cmd.SpeakText, "speak_sentence", context_id="context_id", text="text"),
    _row(
        cmd.SpeakWhole, "speak_text", context_id="context_id", voice_id="voice_id", output="output", text="text"
    ),
    _row(cmd.EndSpeech, "finish_voice_context", context_id="context_id"),
    _row(cmd.HushSpeech, "cancel_voice_context", context_id="context_id"),
    _row(cmd.KeepSpeech, "keep_voice_context", context_id="context_id"),
    _row(cmd.CloseVoice, "disconnect_voice"),
    # to the tools
    _row(cmd.RunTool, "run_tool", call_id="call_id", name="name", arguments="arguments"),
    _row(cmd.CancelTool, "cancel_tool", call_id="call_id"),
    _row(cmd.CancelTools, "cancel_all_tools"),
    # of a Realtime client's session
    _row(rt.TellClient, "send_to_client", body="body"),
    _row(rt.TellUpstream, "send_to_upstream", body="body"),
    _row(rt.PassDown, "forward_to_client", raw="frame"),
)  # fmt: skip

VALUES = (
    _row(AudioFormat, "audio_format", encoding="encoding", rate_hz="rate_hz"),
    _row(
        Item, "item", id="id", kind="kind", role="role", status="status", call_id="call_id", name="name",
        arguments="arguments", text="text",
    ),
    _row(
        Usage, "usage", input_tokens="input_tokens", output_tokens="output_tokens", total_tokens="total_tokens",
        input_audio_tokens="input_audio_tokens", input_text_tokens="input_text_tokens",
        cached_tokens="cached_tokens", output_audio_tokens="output_audio_tokens",
        output_text_tokens="output_text_tokens",
    ),
    _row(Alignment, "alignment", chars="chars", starts_ms="starts_ms", durations_ms="durations_ms"),
    _row(
        ClipHanded, "sent_part", item_id="item_id", content_index="content_index", handed_ms="sent_ms",
        estimated_ms="played_ms",
    ),
    _row(
        ToolSpec, "tool", name="name", description="description", parameters="parameters", examples="examples",
        shown="shown", protected="protected", cancel_on_interrupt="cancel_on_interrupt", of_client="of_client",
        timeout_ms="timeout_ms",
    ),
    _row(
        TurnDetection, "turn_detection", kind="kind", threshold="threshold", prefix_padding_ms="prefix_padding_ms",
        silence_duration_ms="silence_duration_ms", eagerness="eagerness", create_response="create_response",
        interrupt_response="interrupt_response",
    ),
    _row(
        SessionConfig, "config", voice="voice", instructions="instructions", language="language",
        voice_accent="voice_accent", voice_tone="voice_tone", turn="turn", transcription_model="transcription_model",
        noise_reduction="noise_reduction", input_format="input_format", output_format="output_format", tools="tools",
        max_output_tokens="max_output_tokens", effort="effort",
    ),
    _row(
        DeviceOptions, "options", input="input", output="output", max_ahead_ms="max_ahead_ms",
        half_duplex="half_duplex", external_voice="external_voice",
    ),
    _row(SpeechRules, "speech", mode="mode", fallback_voice="fallback_voice"),
    _row(SessionLimits, "limits", max_duration_s="max_duration_s", max_idle_s="max_idle_s"),
    _row(
        RealtimePolicy, "realtime_policy", instructions="instructions", tools="tools", show_tools="show_tools",
        models="models", voices="voices", transcription_models="transcription_models",
        max_output_tokens="max_output_tokens", max_effort="max_effort", allow="allow", denied_fields="denied_fields",
    ),
    _row(
        Policy, "policy", name="name", hello_fields="hello_fields", record="record", realtime="realtime",
        voice="voice", scopes="scopes", may_mint="may_mint",
    ),
)  # fmt: skip
