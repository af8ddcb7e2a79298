"""A session with a device client: the relay owns the turns.

`handle(event, now)` is the whole interface: one event in, the commands that follow from it out. `deadline` says when a
`Tick` is wanted. The life of the session stands here; whose turn it is, in `relay.core.turns`.
"""

from collections import deque
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from enum import Enum
from typing import assert_never, cast

from relay.core import events as ev
from relay.core.commands import (
    CancelTools,
    ClearInput,
    CloseClient,
    CloseUpstream,
    Command,
    CommitInput,
    ConfigureSession,
    ReleaseInput,
    SetInputGate,
    SyncPlayhead,
    TellConnected,
    TellError,
    TellGoodbye,
    TellReady,
    UseOptions,
)
from relay.core.hello import grant
from relay.core.policy import Policy, Principal
from relay.core.server_parts import ServerParts
from relay.core.turns import MAX_TYPED_TURNS, Turns
from relay.core.values import DeviceOptions, ErrorCode, SessionConfig, SpeechRules
from relay.session.common.early_events import EarlyEvents
from relay.session.common.graceful_end import GracefulEnd
from relay.session.common.limits import SessionLimits
from relay.session.common.media_ledger import MediaLedger
from relay.session.common.media_types import InputGate, PartKey

CONNECT_TIMEOUT_S = 20.0
MAX_FAULTS = 10
FAULT_WINDOW_S = 60.0
MIN_COMMIT_MS = 100
MAX_UPDATES = 4
"""Configurations that may wait for the upstream's answer; one may hold a MiB of tools."""
MAX_COMMITS = 16
"""Commits whose answer is waited for; the oldest are forgotten."""

HARMLESS_CODES = frozenset(
    {
        "response_cancel_not_active",
        "conversation_already_has_active_response",
        "input_audio_buffer_commit_empty",
        "item_truncate_invalid_item_id",
        "item_truncate_invalid_audio_end_ms",
        "item_delete_invalid_item_id",
        "item_retrieve_invalid_item_id",
        "unsupported_content_type",
        "invalid_truncate",
    }
)
"""Races between what we ask and what the upstream has done by then: counted, not told (D7)."""

FATAL_CODES = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "invalid_api_key",
        "account_deactivated",
        "billing_hard_limit_reached",
    }
)
"""Nothing that comes after these will work (D6)."""


_TOO_FAST = {
    "audio": "Audio comes faster than it can have been spoken; it is read no faster than 1.2 × real time.",
    "messages": "Messages come too fast; no more than 50 a second are read.",
}

REVOKED = "The key that opened this session was revoked; connect with another one."


class Phase(Enum):
    """Where the session stands."""

    CONNECTING = "connecting"
    CONFIGURING = "configuring"
    READY = "ready"
    ENDED = "ended"


class DeviceSession:
    """One device client's conversation; pure, so that a journal of its events replays it exactly."""

    def __init__(
        self,
        session_id: str,
        config: SessionConfig,
        options: DeviceOptions,
        next_id: Callable[[], str],
        *,
        principal: Principal | None = None,
        limits: SessionLimits | None = None,
        started_at: float = 0.0,
        speech: SpeechRules | None = None,
        ledger: MediaLedger | None = None,
    ) -> None:
        """`speech`: how external voices speak; None: this relay has none. `ledger`: what the audio lines count."""
        self.session_id = session_id
        self.principal = principal or Principal()
        self.options = options = replace(options, external_voice=config.external_voice is not None)
        self.phase = Phase.CONNECTING
        self.config = replace(config, input_format=options.upstream_input, output_format=options.upstream_output)
        self.passed_over: dict[str, int] = {}
        self._next_id = next_id
        self._commands: list[Command] = []
        self._speech_rules = speech
        self.ledger = ledger or MediaLedger(started_at)
        self.turns = Turns(self.config, self._commands.append, next_id, self.ledger, speech, self.policy.allows_tool)
        """The conversation's state, to look at."""
        self._early: EarlyEvents[ev.ClientEvent] = EarlyEvents()
        self._early_at_bytes: int | None = None
        self._heard_before_bytes = 0  # what is held comes after it
        self._gate: InputGate = "held"
        self._told_dropped_bytes = 0
        self._started_at = started_at
        self._limits = limits or SessionLimits()
        self._quiet_since = started_at
        self._quiet_bytes = 0
        self._muted = False
        self._farewell = GracefulEnd()
        self._server_tools = config.tools
        self._parts = ServerParts(self.policy.realtime, config.tools)
        self._teach = False
        self._updates: dict[str, tuple[SessionConfig, DeviceOptions]] = {}
        self._accepted = (self.config, options)
        self._update_by = 0.0
        self._has_spoken = False
        self._announced = False
        self._hellos_owed = 0
        self._commits: deque[str] = deque(maxlen=MAX_COMMITS)
        self._committed_bytes = 0
        self._faults: deque[float] = deque(maxlen=MAX_FAULTS)

    @property
    def was_ready(self) -> bool:
        """Whether the client has had a session: the upstream took its configuration."""
        return self._announced

    @property
    def policy(self) -> Policy:
        """What this client may ask for."""
        return self.principal.policy

    @property
    def deadline(self) -> float | None:
        """When a `Tick` is wanted; None when nothing is waited for."""
        if self.phase in (Phase.CONNECTING, Phase.CONFIGURING) and not self._announced:
            return self._started_at + CONNECT_TIMEOUT_S
        if self.phase is Phase.ENDED:
            return None
        update_by = self._update_by if self._updates else None
        times = (
            self.turns.deadline,
            update_by,
            self._limits.ends_at(self._started_at),
            self._limits.idle_at(self._quiet_since),
            self._farewell.deadline,
        )
        return min((time for time in times if time is not None), default=None)

    def handle(self, event: ev.Event, now: float) -> Sequence[Command]:
        """Take one event at `now` (seconds of a monotonic clock) and say what is to be done, in order."""
        if self.phase is Phase.ENDED:
            return ()
        if type(event) is ev.TextDelta:  # several a second, and they change nothing else
            self.turns.text_delta(event, now)
            return self._take_commands()
        self._dispatch(event, now)
        if self._farewell.reason is not None and self.phase is Phase.READY and self._may_leave(now):
            self._emit(TellGoodbye(self._farewell.reason))
            self._end(1000, self._farewell.reason)
        self._set_gate()
        return self._take_commands()

    def _take_commands(self) -> Sequence[Command]:
        commands, self._commands[:] = list(self._commands), ()
        return commands

    def _may_leave(self, now: float) -> bool:
        """Whether a tool has asked for the end, and the last word has been said and heard."""
        turns = self.turns
        is_owed = turns.is_owed or turns.is_voice_owed or turns.calls.running > 0
        unplayed_ms = None if turns.playback.is_idle else turns.playback.unplayed_ms
        return self._farewell.is_due(now, is_owed=is_owed, unplayed_ms=unplayed_ms)

    @property
    def _heard_bytes(self) -> int:
        """How much of the client's audio the upstream has heard, by the time that the event at hand was sent."""
        ledger = self.ledger
        if self._early_at_bytes is not None:
            return max(self._early_at_bytes - ledger.dropped_input_bytes, 0)
        return ledger.heard_input_bytes if self.phase is Phase.READY else self._heard_before_bytes

    def _set_gate(self) -> None:
        """Tell the uplink what becomes of the client's audio, if that has changed."""
        gate: InputGate = "held"
        if self.phase is Phase.ENDED:
            gate = "closed"
        elif self.phase is Phase.READY:  # silence, not nothing: voice detection only moves with input
            gate = "muted" if self._muted else "open"
        if gate != self._gate:
            self._gate = gate
            self._emit(SetInputGate(gate))

    # -- the gates that the audio lines look at -----------------------------------------------------------------------

    @property
    def discarded(self) -> Container[str]:
        """The responses whose audio is not to be heard any more; always the same object."""
        return self.turns.refused

    @property
    def started(self) -> Container[PartKey]:
        """The content parts that have been started, and may still be heard; always the same object."""
        return self.turns.playback.clips

    def spoken_part(self, context_id: str) -> PartKey | None:
        """The content part that a context of the external voice speaks; None if nobody waits for it."""
        if self.phase is Phase.ENDED or self.turns.speech is None:
            return None
        utterance = self.turns.speech.voice.speaking(context_id)
        return None if utterance is None else utterance.key

    # -- dispatch -----------------------------------------------------------------------------------------------------

    def _dispatch(self, event: ev.Event, now: float) -> None:
        kind = type(event)
        if kind in ev.UPSTREAM_EVENTS:
            self.turns.upstream_event_at = now
            self._upstream(cast(ev.UpstreamEvent, event), now)
        elif kind in ev.CLIENT_EVENTS:
            self._client(cast(ev.ClientEvent, event), now)
        elif kind in ev.VOICE_EVENTS:
            self._has_spoken = self._has_spoken or kind is ev.VoiceSpoke
            self.turns.voice_said(cast(ev.VoiceEvent, event), now)
        else:
            self._relay(cast(ev.RelayEvent, event), now)
        if self.turns.wants_model_voice and self.phase is Phase.READY:
            self._fall_back(now)

    def _client(self, event: ev.ClientEvent, now: float) -> None:
        self._quiet_since = now
        if self.phase is not Phase.READY and isinstance(event, ev.UserText | ev.Commit | ev.Clear | ev.Interrupt):
            if not self._early.add(event, self.ledger.input_bytes):
                self._fault("too_many_turns", "Too many messages before the session is ready; wait.", None, now)
            return
        match event:
            case ev.Hello():
                self._hello(event, now)
            case ev.Playback():
                self._playback(event, now)
            case ev.ToolResult():
                self._tool_result(event, now)
            case ev.UserText():
                self._text(event, now)
            case ev.Commit():
                self._commit(now)
            case ev.Clear():
                self._committed_bytes = self._heard_bytes
                self._emit(ClearInput(self._next_id()))
            case ev.Interrupt():
                self.turns.interrupt()
            case ev.Consent():
                pass  # the recorder has seen it
            case ev.Bye():
                self._end(1000, "bye")
            case ev.ClientFault():
                self._fault(event.code, event.message, event.field, now)
            case ev.ClientClosed():
                self._end(None, event.reason)
            case ev.ClientTooFast():
                self._pass_over("(read more slowly)")
                self._error("too_fast", _TOO_FAST[event.what], False)
            case ev.ClientStuck():
                self._error("slow_client", "The client does not read what it is sent; reconnect.", True)
                self._end(4003, "slow client")
            case _:
                assert_never(event)

    def _relay(self, event: ev.RelayEvent, now: float) -> None:
        turns = self.turns
        match event:
            case ev.Tick():
                self._tick(now)
            case ev.AudioHanded():
                self._muted = self.options.half_duplex
                turns.audio_handed(event.item_id, now)
            case ev.PlayedOut():
                self._muted = False
            case ev.AudioDropped():
                self._muted = False
                turns.audio_dropped(event, now)
                turns.settle(now)
            case ev.AudioOverflow():
                self._error(
                    "audio_backlog",
                    f"The client plays too slowly: {event.dropped_ms} ms of {event.item_id} were left out.",
                    False,
                )
            case ev.ToolReturned():
                turns.tools.returned(event)
                turns.settle(now)
            case ev.ToolProgressed():
                turns.tools.progressed(event)
            case ev.EndAsked():
                if turns.calls.name_of(event.call_id) is not None:
                    self._farewell.request(event.reason, now)
            case ev.Draining():
                self._emit(TellGoodbye(event.reason))
                self._end(1001, event.reason)
            case ev.KeyRevoked():
                self._error("key_revoked", REVOKED, False)
                self._end(1008, "the key was revoked")
            case ev.Crashed():
                self._error("internal_error", "The relay failed in this session; reconnect.", True)
                self._end(1011, "internal error")
            case _:
                assert_never(event)

    def _without_server_texts(self, event: ev.UpstreamEvent) -> ev.UpstreamEvent:
        """An event of the upstream's without what it quotes of the server's share, where the client may be told it."""
        match event:
            case ev.UpstreamError():
                return replace(event, message=self._parts.cut(event.message))
            case ev.UpstreamClosed():
                return replace(event, reason=self._parts.cut(event.reason))
            case ev.ResponseDone() if event.error_message is not None:
                return replace(event, error_message=self._parts.cut(event.error_message))
            case _:
                return event

    def _upstream(self, event: ev.UpstreamEvent, now: float) -> None:
        turns = self.turns
        event = self._without_server_texts(event)
        match event:
            case ev.SpeechStarted():
                turns.speech_started(now)
            case ev.SpeechStopped():
                input_ms = self._heard_bytes // self.options.input.bytes_per_ms
                turns.speech_stopped(event.audio_end_ms, input_ms, now)
                turns.settle(now)
            case ev.InputCommitted():
                self._committed_bytes = self._heard_bytes
                self._commits.clear()
                turns.input_committed(event.item_id, now)
                turns.settle(now)
            case ev.InputCleared():
                turns.input_cleared()
                turns.settle(now)
            case ev.UserTranscript():
                turns.user_transcript(event)
            case ev.ItemAdded():
                turns.item_added(event)
            case ev.ItemDeleted():
                turns.items.deleted(event.item_id)
            case ev.ResponseCreated():
                turns.response_created(event)
            case ev.TextDone():
                turns.text_done(event, now)
            case ev.OutputStarted():
                turns.output_started(event, now)
            case ev.AudioDone():
                turns.audio_done(event)
            case ev.ResponseDone():
                turns.response_done(event, now)
            case ev.UpstreamError():
                self._upstream_error(event, now)
            case _:
                self._connection(event, now)

    def _connection(self, event: ev.UpstreamEvent, now: float) -> None:
        match event:
            case ev.SessionCreated():
                self._teach = event.engine is not None
                if self.phase is Phase.CONNECTING:
                    self._configure(self.config, now)
            case ev.SessionUpdated():
                self.turns.silence_ms = event.silence_ms or 0
                self._configured(now)
            case ev.UpstreamRefused():
                code: ErrorCode = "upstream_unreachable" if event.status is None else "upstream_refused"
                self._error(code, event.message, event.retryable)
                self._end(1011, "the upstream refused the connection")
            case ev.UpstreamStuck(final=True):
                self._error("upstream_stalled", "The model's end does not take what it is sent; reconnect.", True)
                self._end(1011, "the upstream does not read")
            case ev.UpstreamStuck():
                self._error("audio_backlog", "The model's end is too slow: some audio was left out.", False)
            case ev.UpstreamClosed():
                self._error("upstream_closed", _closed_text(event), True)
                self._end(1011, "the upstream closed the connection")
            case ev.UnknownUpstream():
                if not event.known:
                    self._pass_over(event.type)
            case ev.MalformedUpstream():
                self._pass_over("(malformed)")
            case _:
                pass  # opened, output items, truncated, failed transcripts: nothing that a device client is told

    # -- life ---------------------------------------------------------------------------------------------------------

    def _configure(self, config: SessionConfig, now: float) -> None:
        event_id = self._next_id()
        self._updates[event_id] = (config, self.options)
        self._update_by = now + CONNECT_TIMEOUT_S
        self._heard_before_bytes = self._heard_bytes
        self.phase = Phase.CONFIGURING
        self._emit(ConfigureSession(config, event_id, teach=self._teach))

    def _configured(self, now: float) -> None:
        if not self._updates:
            return
        self._accepted = config, _ = self._updates.pop(next(iter(self._updates)))
        if self._updates:
            return  # a hello came in between: its update is still under way
        self.config = config
        self.turns.reconfigured(config)
        self._ready(now)

    def _ready(self, now: float) -> None:
        self.phase = Phase.READY
        self.turns.warm_up(now)
        if not self._announced:
            self._announced = True
            self._emit(TellConnected(self.session_id, self.options))
        for _ in range(self._hellos_owed):
            self._emit(TellReady(self.options, self.config))
        self._hellos_owed = 0
        lost_bytes = self.ledger.dropped_input_bytes - self._told_dropped_bytes
        if lost_bytes:
            self._told_dropped_bytes += lost_bytes
            lost_ms = lost_bytes // self.options.input.bytes_per_ms
            self._error(
                "audio_backlog",
                f"The model was not ready in time: the oldest {lost_ms} ms of audio were left out.",
                False,
            )
        if self._muted:  # what was held is released as silence, whatever was said in between
            self._set_gate()
        for input_bytes, early in self._early.take():
            if input_bytes > (self._early_at_bytes or 0):
                self._emit(ReleaseInput(input_bytes))
            self._early_at_bytes = input_bytes
            self._dispatch(early, now)
        self._early_at_bytes = None
        self._set_gate()
        self.turns.settle(now)

    def _hello(self, event: ev.Hello, now: float) -> None:
        if self._has_spoken or self.ledger.input_bytes or self.ledger.output_bytes:
            self._fault("hello_too_late", "Send hello before the first audio.", None, now)
            return
        if len(self._updates) >= MAX_UPDATES:
            self._fault("hello_refused", "Wait for ready before the next hello.", None, now)
            return
        latest = next(reversed(self._updates.values()), (self.config, self.options))[0]
        has_voices = self._speech_rules is not None
        granted = grant(event, self.policy, latest, self.options, self._server_tools, has_voices=has_voices)
        for message, field in granted.refusals:
            self._pass_over("(hello fields refused)")
            self._error("not_allowed", message, False, field)
        config, self.options = granted.config, granted.options
        self._emit(UseOptions(self.options))
        self._hellos_owed += 1
        if self.phase is Phase.CONNECTING:
            self.config = config
            self.turns.reconfigured(config)
        elif config != latest:
            self._configure(config, now)
        elif self.phase is Phase.READY:
            self._accepted = (self.config, self.options)
            self._ready(now)

    def _fall_back(self, now: float) -> None:
        """The external voice has failed: from the next turn on the model speaks itself."""
        assert self._speech_rules is not None
        self.options = replace(self.options, external_voice=False)
        self._emit(UseOptions(self.options))
        self._hellos_owed += 1  # `ready` tells whose voice it is now
        voice = self._speech_rules.fallback_voice
        config = replace(self.config, voice=voice, output_format=self.options.upstream_output)
        self._configure(config, now)

    def _tick(self, now: float) -> None:
        if not self._announced:
            if now >= self._started_at + CONNECT_TIMEOUT_S:
                self._error("upstream_timeout", "The model's end did not get ready in time; try again.", True)
                self._end(1011, "the upstream did not get ready")
            return
        if self._updates and now >= self._update_by:
            self._updates.clear()
            self._refuse_hello("The model's end did not answer; the settings before are in force.", None, now)
        if self._over_limit(now):
            return
        self.turns.tick(now)
        if self.phase is Phase.READY:
            self.turns.settle(now)

    def _over_limit(self, now: float) -> bool:
        """End a session that has lasted, or been quiet, too long."""
        if self._heard_bytes != self._quiet_bytes or self.turns.is_owed:
            self._quiet_bytes, self._quiet_since = self._heard_bytes, now
        else:
            self._quiet_since = max(self._quiet_since, min(self.turns.silent_by, now))
        if (ends_at := self._limits.ends_at(self._started_at)) is not None and now >= ends_at:
            limit = f"A session may last {self._limits.max_duration_s:.0f} s; reconnect to go on."
            self._error("limit_reached", limit, True)
            self._end(4002, "session too long")
        elif (idle_at := self._limits.idle_at(self._quiet_since)) is not None and now >= idle_at:
            limit = f"Nothing was said for {self._limits.max_idle_s:.0f} s; reconnect to go on."
            self._error("idle", limit, True)
            self._end(4002, "idle")
        return self.phase is Phase.ENDED

    def _end(self, close_code: int | None, reason: str) -> None:
        if close_code is not None:
            self._emit(CloseClient(close_code, reason))
        self._emit(CancelTools())
        if self.turns.speech is not None:
            self.turns.speech.close()
        self._emit(CloseUpstream())
        self.turns.playback.clips.clear()  # what still comes is for nobody
        self.phase = Phase.ENDED

    # -- the client's words -------------------------------------------------------------------------------------------

    def _playback(self, event: ev.Playback, now: float) -> None:
        verdict = self.turns.acknowledged(event.item_id, event.played_ms, now)
        if verdict == "ok":
            self._emit(SyncPlayhead(event.item_id, self.turns.playback.acknowledged_ms))
        elif verdict == "unknown":
            self._fault("unknown_item", f"There is no audio item {event.item_id!r:.80}.", "itemId", now)

    def _tool_result(self, event: ev.ToolResult, now: float) -> None:
        if self.turns.tools.client_result(event, now):
            self.turns.settle(now)
        else:
            self._fault("unknown_call", f"There is no tool call {event.call_id!r:.80}.", "callId", now)

    def _text(self, event: ev.UserText, now: float) -> None:
        if len(self.turns.typed) >= MAX_TYPED_TURNS:
            self._error(
                "too_many_turns",
                f"{MAX_TYPED_TURNS} typed turns are waiting already; wait for one to end.",
                True,
            )
            return
        self.turns.typed.append(event.text)
        self.turns.settle(now)

    def _commit(self, now: float) -> None:
        if self._heard_bytes - self._committed_bytes < MIN_COMMIT_MS * self.options.input.bytes_per_ms:
            self._error("commit_too_short", f"Send at least {MIN_COMMIT_MS} ms of audio before commit.", False)
            return
        event_id = self._next_id()
        self._commits.append(event_id)
        self._committed_bytes = self._heard_bytes
        self._emit(CommitInput(event_id))

    def _fault(self, code: ErrorCode, message: str, field: str | None, now: float) -> None:
        self._error(code, message, False, field)
        self._faults.append(now)
        if len(self._faults) == MAX_FAULTS and now - self._faults[0] < FAULT_WINDOW_S:
            self._error(
                "too_many_faults",
                f"{MAX_FAULTS} faults within a minute; mend the client, then reconnect.",
                False,
            )
            self._end(1008, "too many faults")

    # -- the upstream's errors ----------------------------------------------------------------------------------------

    def _upstream_error(self, event: ev.UpstreamError, now: float) -> None:
        if event.code in FATAL_CODES or event.code == "session_expired":
            code: ErrorCode = "session_expired" if event.code == "session_expired" else "upstream_refused"
            self._error(code, event.message, code == "session_expired")
            self._end(1011, event.code or "")
        elif self.turns.request_refused(event, now):
            self.turns.settle(now)
        elif event.event_id in self._updates:
            self._update_refused(event, now)
        elif event.event_id is not None and event.event_id in self._commits:
            self._commits.remove(event.event_id)
            self._error("commit_too_short", event.message, False)
        elif event.code in HARMLESS_CODES:
            self._pass_over(f"error {event.code}")
        else:
            self._error("upstream_error", event.message, True, event.param)

    def _update_refused(self, event: ev.UpstreamError, now: float) -> None:
        del self._updates[event.event_id or ""]
        if not self._announced and not self._updates:
            self._error("session_refused", event.message, False, event.param)
            self._end(1011, "the upstream refused the session's settings")
            return
        self._refuse_hello(event.message, event.param, now)

    def _refuse_hello(self, message: str, field: str | None, now: float) -> None:
        """Go back to what the upstream accepted last, on our own side of the wire too."""
        self._error("hello_refused", message, False, field)
        if self._updates:
            return
        self.config, self.options = self._accepted
        self.turns.keep_voice()
        self._emit(UseOptions(self.options))
        self._ready(now)

    # -- small --------------------------------------------------------------------------------------------------------

    def _emit(self, command: Command) -> None:
        self._commands.append(command)

    def _error(self, code: ErrorCode, message: str, retryable: bool, field: str | None = None) -> None:
        self._emit(TellError(code, message, field, retryable))

    def _pass_over(self, what: str) -> None:
        if what in self.passed_over or len(self.passed_over) < 64:
            self.passed_over[what] = self.passed_over.get(what, 0) + 1


def _closed_text(event: ev.UpstreamClosed) -> str:
    reason = f": {event.reason}" if event.reason else ""
    return f"The model's end closed the connection ({event.code}{reason}); reconnect to go on."
