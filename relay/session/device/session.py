"""A session with a device client: each event goes to the part whose matter it is.

`handle(event, now)` is the whole interface: one event in, the commands that follow from it out. `deadline` says when a
`Tick` is wanted. Audio does not come here: the audio lines read `discarded`, `started` and `spoken_part`.

    client ────► `_client` ────► Negotiation (hello), UserTurn, Turns
    upstream ──► `_upstream` ──► Turns (the user's turn, responses), `_connection` (everything else)
    voice ─────► Turns
    relay ─────► `_relay` ─────► Turns, Lifecycle

Each event has its case in one `match`, and each `match` is complete: mypy finds an event without a case. Before the
session is ready, what a client asks of the conversation waits in `UserTurn`.
"""

from collections.abc import Callable, Container, Sequence
from typing import assert_never, cast

from relay.session.common.life import SessionLife
from relay.session.common.limits import FaultBudget, IgnoredCounts, SessionLimits
from relay.session.common.media_ledger import MediaLedger
from relay.session.common.media_types import PartKey
from relay.session.common.model import DeviceOptions, ErrorCode, SessionConfig, SpeechRules
from relay.session.common.policy import Principal
from relay.session.device import events as ev
from relay.session.device.commands import Command, TellError
from relay.session.device.endings import FATAL_ERRORS, HARMLESS_ERRORS, TOO_MANY_FAULTS, ending_of, without_server_parts
from relay.session.device.lifecycle import Lifecycle
from relay.session.device.negotiation import Negotiation
from relay.session.device.turns import Turns
from relay.session.device.user_turn import EarlyEvent, UserTurn
from relay.session.realtime.server_overlay import ServerParts

_TOO_FAST = {
    "audio": "Audio comes faster than it can have been spoken; it is read no faster than 1.2 × real time.",
    "messages": "Messages come too fast; no more than 50 a second are read.",
}


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
        policy = self.principal.policy
        self.ledger = ledger = ledger or MediaLedger(started_at)
        self.passed_over = IgnoredCounts()
        self._commands: list[Command] = []
        emit = self._emit = self._commands.append
        self.life = life = SessionLife(started_at, limits or SessionLimits())
        self._negotiation = negotiation = Negotiation(
            config, options, policy, speech, life, self.passed_over, emit, next_id
        )
        user = UserTurn(life, negotiation, ledger, emit, next_id)
        truncates = options.capabilities.truncates
        self.turns = turns = Turns(
            negotiation.config, speech, policy.allows_tool, user, ledger, emit, next_id, truncates=truncates
        )
        """The conversation's state, to look at."""
        self._parts = ServerParts(policy.realtime, config.tools)
        self._faults = FaultBudget()
        self._lifecycle = Lifecycle(session_id, life, negotiation, turns, emit, self._dispatch)

    @property
    def options(self) -> DeviceOptions:
        """What the client's side of the wire works by."""
        return self._negotiation.options

    @property
    def config(self) -> SessionConfig:
        """The configuration that is active upstream."""
        return self._negotiation.config

    @property
    def deadline(self) -> float | None:
        """When a `Tick` is wanted; None when nothing is waited for."""
        graceful_end = self._lifecycle.graceful_end
        return self.life.deadline(self.turns.deadline, self._negotiation.deadline, graceful_end.deadline)

    @property
    def discarded(self) -> Container[str]:
        """The responses whose audio is not to be heard any more; always the same object."""
        return self.turns.responses.discarded

    @property
    def started(self) -> Container[PartKey]:
        """The content parts that have been started, and may still be heard; always the same object."""
        return self.turns.playback.clips

    def spoken_part(self, context_id: str) -> PartKey | None:
        """The content part that a context of the external voice speaks; None if nobody waits for it."""
        return None if self.life.has_ended else self.turns.tts.spoken_part(context_id)

    def handle(self, event: ev.Event, now: float) -> Sequence[Command]:
        """Take one event at `now` (seconds of a monotonic clock) and say what is to be done, in order."""
        if self.life.has_ended:
            return ()
        if type(event) is ev.TextDelta:  # several a second, and they change nothing else
            self.turns.text_delta(event, now)
            return self._take_commands()
        self._dispatch(event, now)
        self._lifecycle.end_if_due(now)
        self.turns.user.set_gate()
        return self._take_commands()

    def _take_commands(self) -> Sequence[Command]:
        commands, self._commands[:] = list(self._commands), ()
        return commands

    def _dispatch(self, event: ev.Event, now: float) -> None:
        kind = type(event)
        if kind in ev.UPSTREAM_EVENTS:
            self._upstream(without_server_parts(cast(ev.UpstreamEvent, event), self._parts), now)
        elif kind in ev.CLIENT_EVENTS:
            self._client(cast(ev.ClientEvent, event), now)
        elif kind in ev.VOICE_EVENTS:
            self.turns.voice_event(cast(ev.VoiceEvent, event), now)
        else:
            self._relay(cast(ev.RelayEvent, event), now)
        if self.turns.wants_model_voice and self.life.is_ready:
            self._lifecycle.follow(self._negotiation.fall_back(now), now)

    # -- the client ---------------------------------------------------------------------------------------------------

    def _client(self, event: ev.ClientEvent, now: float) -> None:
        self.life.act(now)
        if isinstance(event, EarlyEvent) and not self.life.is_ready:
            if not self.turns.user.hold_event(event):
                self._fault("too_many_turns", "Too many messages before the session is ready; wait.", None, now)
            return
        match event:
            case ev.Hello():
                self._hello(event, now)
            case ev.Playback():
                if self.turns.acknowledged(event.item_id, event.played_ms, now) == "unknown":
                    self._fault("unknown_item", f"There is no audio item {event.item_id!r:.80}.", "itemId", now)
            case ev.ToolResult():
                if not self.turns.client_result(event, now):
                    self._fault("unknown_call", f"There is no tool call {event.call_id!r:.80}.", "callId", now)
            case ev.UserText():
                self.turns.type(event.text, now)
            case ev.Commit():
                self.turns.user.commit()
            case ev.Clear():
                self.turns.user.clear()
            case ev.Interrupt():
                self.turns.interrupt()
            case ev.Consent():
                pass  # for the recorder alone
            case ev.ClientFault():
                self._fault(event.code, event.message, event.field, now)
            case ev.ClientTooFast():
                self.passed_over.count("(read more slowly)")
                self._error("too_fast", _TOO_FAST[event.what])
            case ev.Bye() | ev.ClientClosed() | ev.ClientStuck():
                self._lifecycle.end(ending_of(event))
            case _:
                assert_never(event)

    def _hello(self, event: ev.Hello, now: float) -> None:
        if self.ledger.input_bytes or self.turns.has_output:
            self._fault("hello_too_late", "Send hello before the first audio.", None, now)
        elif self._negotiation.is_full:
            self._fault("hello_refused", "Wait for ready before the next hello.", None, now)
        else:
            self._lifecycle.follow(self._negotiation.hello(event, now), now)

    def _fault(self, code: ErrorCode, message: str, field: str | None, now: float) -> None:
        self._error(code, message, field)
        if self._faults.spend(now):
            self._lifecycle.end(TOO_MANY_FAULTS)

    # -- the upstream -------------------------------------------------------------------------------------------------

    def _upstream(self, event: ev.UpstreamEvent, now: float) -> None:
        self.turns.responses.upstream_sent(now)
        if isinstance(event, ev.UserEvent):
            self.turns.user_event(event, now)
        elif isinstance(event, ev.ResponseEvent):
            self.turns.response_event(event, now)
        else:
            self._connection(event, now)

    def _connection(self, event: ev.ConnectionEvent, now: float) -> None:
        match event:
            case ev.SessionCreated():
                self._lifecycle.follow(self._negotiation.session_created(event, now), now)
            case ev.SessionUpdated():
                self.turns.user.use_silence(event.silence_ms or 0)
                self._lifecycle.follow(self._negotiation.session_updated(), now)
            case ev.UpstreamError():
                self._upstream_error(event, now)
            case ev.UpstreamStuck(final=False):
                self._error("audio_backlog", "The model's end is too slow: some audio was left out.")
            case ev.UpstreamStuck() | ev.UpstreamRefused() | ev.UpstreamClosed():
                self._lifecycle.end(ending_of(event))
            case ev.UnknownUpstream():
                if not event.known:
                    self.passed_over.count(event.type)
            case ev.MalformedUpstream():
                self.passed_over.count("(malformed)")
            case ev.UpstreamOpened() | ev.OutputItemAdded() | ev.ItemTruncated():
                pass  # `session.created`, the item's own events and our own truncation say the same
            case _:
                assert_never(event)

    def _upstream_error(self, event: ev.UpstreamError, now: float) -> None:
        if event.code in FATAL_ERRORS:
            self._lifecycle.end(ending_of(event))
        elif self.turns.request_refused(event, now):
            pass
        elif (step := self._negotiation.update_refused(event)) is not None:
            self._lifecycle.follow(step, now)
        elif self.turns.user.commit_refused(event.event_id, event.message):
            pass
        elif event.code in HARMLESS_ERRORS:
            self.passed_over.count(f"error {event.code}")
        else:
            self._error("upstream_error", event.message, event.param, retryable=True)

    # -- the relay ----------------------------------------------------------------------------------------------------

    def _relay(self, event: ev.RelayEvent, now: float) -> None:
        turns = self.turns
        match event:
            case ev.Tick():
                self._lifecycle.tick(now)
            case ev.AudioHanded():
                self.turns.user.mute()
                turns.timer.audio_sent(event.item_id, now)
            case ev.PlayedOut():
                self.turns.user.unmute()
            case ev.AudioDropped():
                self.turns.user.unmute()
                turns.audio_dropped(event, now)
            case ev.AudioOverflow():
                text = f"The client plays too slowly: {event.dropped_ms} ms of {event.item_id} were left out."
                self._error("audio_backlog", text)
            case ev.ToolReturned():
                turns.tool_returned(event, now)
            case ev.ToolProgressed():
                turns.tools.progressed(event)
            case ev.EndAsked():
                if turns.tools.calls.name_of(event.call_id) is not None:
                    self._lifecycle.graceful_end.request(event.reason, now)
            case ev.Draining() | ev.KeyRevoked() | ev.Crashed():
                self._lifecycle.end(ending_of(event))
            case _:
                assert_never(event)

    def _error(self, code: ErrorCode, message: str, field: str | None = None, *, retryable: bool = False) -> None:
        self._emit(TellError(code, message, field, retryable))
