"""The stored names of format 2: one row for each event, each command and each value that they hold.

A row names the class, its tag, and the name that each field is stored under. A stored name never changes: recordings
hold it. Rename a class on the Python side of its row. A field that gets another name is written `name=stored`.

Adding a row, or a field that has a default, keeps older recordings readable. All else needs a new format.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final, NamedTuple

from audio.formats import AudioFormat
from relay.core import commands as cmd
from relay.core import events as ev
from relay.core import realtime_events as rt
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
    UpstreamCapabilities,
    Usage,
)
from relay.session.common.limits import SessionLimits
from relay.session.device.turn_metrics import TurnMetrics

LATENCY: Final = "send_latency"


class Row(NamedTuple):
    """One class and how it is stored; `fields` maps the names of Python to the stored ones."""

    kind: type
    tag: str
    fields: Mapping[str, str]


def _row(kind: Any, tag: str, fields: str = "") -> Row:
    """`fields`: the stored names; `python=stored` where Python has another one."""
    names = (field.split("=") for field in fields.split())
    return Row(kind, tag, {name[0]: name[-1] for name in names})


EVENTS = (
    # from a device client
    _row(
        ev.Hello,
        "hello",
        "given=fields input output max_ahead_ms voice instructions language turn half_duplex tools consent",
    ),
    _row(ev.Playback, "playback", "item_id played_ms"),
    _row(ev.ToolResult, "tool_result", "call_id output failed"),
    _row(ev.UserText, "user_text", "text"),
    _row(ev.Commit, "commit"),
    _row(ev.Clear, "clear"),
    _row(ev.Interrupt, "interrupt"),
    _row(ev.Consent, "consent", "consent"),
    _row(ev.Bye, "bye"),
    _row(ev.ClientFault, "client_protocol_error", "code message field"),
    # from any client
    _row(ev.ClientClosed, "client_closed", "code reason"),
    _row(ev.ClientTooFast, "client_rate_limited", "what"),
    _row(ev.MessageStalled, "client_message_stalled"),
    _row(ev.ClientStuck, "client_backpressure", "unsent_bytes"),
    # from the upstream
    _row(ev.UpstreamOpened, "upstream_opened"),
    _row(ev.UpstreamRefused, "upstream_refused", "status message retryable"),
    _row(ev.UpstreamClosed, "upstream_closed", "code reason"),
    _row(ev.UpstreamStuck, "upstream_backpressure", "dropped_bytes final=fatal"),
    _row(ev.SessionCreated, "session_created", "model engine expires_at"),
    _row(ev.SessionUpdated, "session_updated", "silence_ms"),
    _row(ev.SpeechStarted, "speech_started", "item_id audio_start_ms"),
    _row(ev.SpeechStopped, "speech_stopped", "item_id audio_end_ms"),
    _row(ev.InputCommitted, "input_committed", "item_id previous_item_id"),
    _row(ev.InputCleared, "input_cleared"),
    _row(ev.UserTranscript, "user_transcript", "item_id text final"),
    _row(ev.UserTranscriptFailed, "user_transcript_failed", "item_id message"),
    _row(ev.ItemAdded, "item_added", "item previous_item_id"),
    _row(ev.ItemDeleted, "item_deleted", "item_id"),
    _row(ev.ItemTruncated, "item_truncated", "item_id audio_end_ms"),
    _row(ev.ResponseCreated, "response_created", "response_id request_id"),
    _row(ev.OutputItemAdded, "output_item_added", "response_id item"),
    _row(ev.TextDelta, "text_delta", "response_id item_id content_index text spoken"),
    _row(ev.TextDone, "text_done", "response_id item_id content_index text spoken"),
    _row(ev.OutputStarted, "output_started", "response_id item_id content_index"),
    _row(ev.AudioDone, "audio_done", "response_id item_id content_index"),
    _row(
        ev.ResponseDone,
        "response_done",
        "response_id status reason error_code error_message output usage request_id",
    ),
    _row(ev.UpstreamError, "upstream_error", "code message type param event_id"),
    _row(ev.UnknownUpstream, "unknown_upstream_event", "type known"),
    _row(ev.MalformedUpstream, "malformed_upstream_message", "what"),
    # from an external voice
    _row(ev.VoiceOpened, "voice_connected"),
    _row(ev.VoiceSpoke, "voice_audio", "context_id n_bytes alignment"),
    _row(ev.VoiceFinished, "voice_context_done", "context_id"),
    _row(ev.VoiceFailed, "voice_failed", "message code retryable context_id"),
    # from the relay itself
    _row(ev.Tick, "deadline_reached"),
    _row(ev.AudioHanded, "first_audio_sent", "item_id"),
    _row(ev.PlayedOut, "playout_finished"),
    _row(ev.AudioDropped, "playout_cleared", "clips=parts"),
    _row(ev.AudioOverflow, "playout_overflow", "item_id dropped_ms"),
    _row(ev.ToolReturned, "tool_call_finished", "call_id status output ms arguments for_client"),
    _row(ev.ToolProgressed, "tool_call_progress", "call_id text ms"),
    _row(ev.EndAsked, "end_requested", "call_id reason"),
    _row(ev.Draining, "server_draining", "reason"),
    _row(ev.KeyRevoked, "key_revoked"),
    _row(ev.Crashed, "internal_failure", "where"),
    # of a Realtime client's session; the first two have lines of their own
    _row(rt.ClientSaid, "client_event", "body"),
    _row(rt.UpstreamSaid, "upstream_event", "raw=frame body"),
    _row(rt.ClientBabbled, "invalid_client_message", "message code param event_id"),
)

COMMANDS = (
    # to the upstream
    _row(cmd.ConfigureSession, "configure_session", "config event_id teach=include_examples"),
    _row(cmd.CommitInput, "commit_input", "event_id"),
    _row(cmd.ClearInput, "clear_input", "event_id"),
    _row(cmd.CreateItem, "create_item", "item event_id after"),
    _row(cmd.DeleteItem, "delete_item", "item_id event_id"),
    _row(cmd.TruncateItem, "truncate_item", "item_id content_index audio_end_ms event_id"),
    _row(cmd.CreateResponse, "create_response", "event_id allow_tools"),
    _row(cmd.CancelResponse, "cancel_response", "response_id event_id"),
    _row(cmd.CloseUpstream, "close_upstream"),
    # to a device client
    _row(cmd.TellConnected, "send_connected", "session_id options"),
    _row(cmd.TellReady, "send_ready", "options config"),
    _row(cmd.TellSpeech, "send_speech", "started"),
    _row(cmd.TellResponseStart, "send_response_start"),
    _row(cmd.TellResponseEnd, "send_response_end", "final_text status more"),
    _row(cmd.TellText, "send_text_delta", "text"),
    _row(cmd.TellTranscript, "send_transcript", "role item_id order text final"),
    _row(cmd.TellTool, "send_tool", "call_id name status ms arguments output text"),
    _row(cmd.TellToolCall, "send_tool_call", "call_id name arguments timeout_ms"),
    _row(cmd.TellInterrupted, "send_interrupted", "item_id played_ms heard_text estimated"),
    _row(cmd.TellUsage, "send_usage", "usage"),
    _row(TurnMetrics, LATENCY, " ".join(field.name for field in fields(TurnMetrics))),
    _row(cmd.TellError, "send_error", "code message field retryable"),
    _row(cmd.TellGoodbye, "send_goodbye", "reason"),
    _row(cmd.CloseClient, "close_client", "code reason"),
    # to the playout
    _row(cmd.PlayStart, "audio_start", "item_id content_index"),
    _row(cmd.PlayEnd, "audio_end", "item_id content_index total_ms"),
    _row(cmd.DropAudio, "clear_playout"),
    _row(cmd.SyncPlayhead, "sync_playout", "item_id played_ms"),
    _row(cmd.UseOptions, "apply_options", "options"),
    # to the uplink
    _row(cmd.SetInputGate, "set_input_gate", "gate"),
    _row(cmd.ReleaseInput, "release_input", "until_bytes"),
    # to an external voice
    _row(cmd.OpenVoice, "connect_voice", "voice_id output"),
    _row(cmd.SpeakText, "speak_sentence", "context_id text"),
    _row(cmd.SpeakWhole, "speak_text", "context_id voice_id output text"),
    _row(cmd.EndSpeech, "finish_voice_context", "context_id"),
    _row(cmd.HushSpeech, "cancel_voice_context", "context_id"),
    _row(cmd.KeepSpeech, "keep_voice_context", "context_id"),
    _row(cmd.CloseVoice, "disconnect_voice"),
    # to the tools
    _row(cmd.RunTool, "run_tool", "call_id name arguments"),
    _row(cmd.CancelTool, "cancel_tool", "call_id"),
    _row(cmd.CancelTools, "cancel_all_tools"),
    # of a Realtime client's session
    _row(rt.TellClient, "send_to_client", "body"),
    _row(rt.TellUpstream, "send_to_upstream", "body"),
    _row(rt.PassDown, "forward_to_client", "raw=frame"),
)

VALUES = (
    _row(AudioFormat, "audio_format", "encoding rate_hz"),
    _row(Item, "item", "id kind role status call_id name arguments text"),
    _row(
        Usage,
        "usage",
        "input_tokens output_tokens total_tokens input_audio_tokens input_text_tokens cached_tokens "
        "output_audio_tokens output_text_tokens",
    ),
    _row(Alignment, "alignment", "chars starts_ms durations_ms"),
    _row(ClipHanded, "sent_part", "item_id content_index handed_ms=sent_ms estimated_ms=played_ms"),
    _row(
        ToolSpec,
        "tool",
        "name description parameters examples shown protected cancel_on_interrupt of_client timeout_ms",
    ),
    _row(
        TurnDetection,
        "turn_detection",
        "kind threshold prefix_padding_ms silence_duration_ms eagerness create_response interrupt_response",
    ),
    _row(
        SessionConfig,
        "config",
        "voice instructions language voice_accent voice_tone turn transcription_model noise_reduction input_format "
        "output_format tools max_output_tokens effort",
    ),
    _row(DeviceOptions, "options", "input output max_ahead_ms half_duplex external_voice upstream"),
    _row(UpstreamCapabilities, "upstream_capabilities", "input_pcm output_pcm has_g711 truncates"),
    _row(SpeechRules, "speech", "mode fallback_voice"),
    _row(SessionLimits, "limits", "max_duration_s max_idle_s"),
    _row(
        RealtimePolicy,
        "realtime_policy",
        "instructions tools show_tools models voices transcription_models max_output_tokens max_effort allow "
        "denied_fields",
    ),
    _row(Policy, "policy", "name hello_fields record realtime voice scopes may_mint"),
)
