"""What is in force between a device client, the relay and the upstream, and how it changes.

    hello ──grant──► options at once ──session.update──► upstream ──session.updated──► configuration in force
                                                             └──error, no answer──► both as last accepted

The client's side (`options`) changes with the hello. The upstream's side (`config`) changes when the upstream accepts
it. Several updates may be under way; the last one decides. If it is refused, both sides go back to what the upstream
accepted last. A failed external voice is replaced in the same way, without a hello. Each method returns a `Step`: what
the session has to do about it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from relay.core import events as ev
from relay.core.commands import Command, ConfigureSession, TellError, TellReady, UseOptions
from relay.core.policy import Policy
from relay.core.values import DeviceOptions, SessionConfig, SpeechRules
from relay.session.common.ignored import IgnoredCounts
from relay.session.common.life import Phase, SessionLife
from relay.session.common.limits import CONNECT_TIMEOUT_S
from relay.session.device.hello import grant

MAX_UPDATES = 4
"""Configurations that may wait for the upstream's answer; one may hold a MiB of tools."""

Step = Literal["none", "chosen", "configuring", "in_force", "rolled_back", "refused"]
"""`chosen`: the upstream will be asked for this first. `configuring`: an update went upstream. `in_force`,
`rolled_back`: the session is ready. `refused`: it cannot be."""


class Negotiation:
    """Options and configuration of one session; commands go to `emit`, ids come from `next_id`.

    `speech` says how external voices speak; None: this relay has none.
    """

    def __init__(
        self,
        config: SessionConfig,
        options: DeviceOptions,
        policy: Policy,
        speech: SpeechRules | None,
        life: SessionLife,
        ignored: IgnoredCounts,
        emit: Callable[[Command], None],
        next_id: Callable[[], str],
    ) -> None:
        self.options = options = replace(options, external_voice=config.external_voice is not None)
        """What the client's side works by."""
        self.config = replace(config, input_format=options.upstream_input, output_format=options.upstream_output)
        """What the upstream has accepted, or will be asked for first."""
        self._policy = policy
        self._speech = speech
        self._life = life
        self._server_tools = config.tools
        self._ignored = ignored
        self._emit = emit
        self._next_id = next_id
        self._teach = False
        self._updates: dict[str, tuple[SessionConfig, DeviceOptions]] = {}
        self._accepted = (self.config, options)
        self._answer_by = 0.0
        self._unanswered_hellos = 0

    @property
    def deadline(self) -> float | None:
        """When `tick` is wanted."""
        return self._answer_by if self._updates else None

    @property
    def is_full(self) -> bool:
        """Whether a hello has to wait for the answer to those before."""
        return len(self._updates) >= MAX_UPDATES

    def hello(self, event: ev.Hello, now: float) -> Step:
        """The client's wishes: grant what the policy allows, and ask the upstream for what that changes there."""
        latest = next(reversed(self._updates.values()), (self.config, self.options))[0]
        has_voices = self._speech is not None
        granted = grant(event, self._policy, latest, self.options, self._server_tools, has_voices=has_voices)
        for message, field in granted.refusals:
            self._ignored.count("(hello fields refused)")
            self._emit(TellError("not_allowed", message, field))
        self._use(granted.options)
        self._unanswered_hellos += 1
        if self._life.phase is Phase.CONNECTING:
            self.config = granted.config
            return "chosen"
        if granted.config != latest:
            return self._configure(granted.config, now)
        if self._life.is_ready:
            self._accepted = (self.config, self.options)
            return "in_force"
        return "none"

    def answer_hellos(self) -> None:
        """The session is ready: each hello is answered with what is in force."""
        for _ in range(self._unanswered_hellos):
            self._emit(TellReady(self.options, self.config))
        self._unanswered_hellos = 0

    def session_created(self, event: ev.SessionCreated, now: float) -> Step:
        """The upstream has introduced itself: configure it, unless that is a repetition."""
        self._teach = event.engine is not None
        return self._configure(self.config, now) if self._life.phase is Phase.CONNECTING else "none"

    def session_updated(self) -> Step:
        """The upstream has accepted the oldest update."""
        if not self._updates:
            return "none"
        self._accepted = self._updates.pop(next(iter(self._updates)))
        if self._updates:
            return "none"  # a hello came in between: its update is still under way
        self.config = self._accepted[0]
        return "in_force"

    def update_refused(self, event: ev.UpstreamError) -> Step | None:
        """The upstream sent an error; None if it refuses no update."""
        if event.event_id is None or self._updates.pop(event.event_id, None) is None:
            return None
        if self._life.was_ready or self._updates:
            return self._roll_back(event.message, event.param)
        self._emit(TellError("session_refused", event.message, event.param))
        return "refused"

    def tick(self, now: float) -> Step:
        """Give up updates that the upstream has not answered in time."""
        if not self._updates or now < self._answer_by:
            return "none"
        self._updates.clear()
        return self._roll_back("The model's end did not answer; the settings before are in force.", None)

    def fall_back(self, now: float) -> Step:
        """The external voice has failed: from the next turn on the model itself speaks."""
        assert self._speech is not None
        self._use(replace(self.options, external_voice=False))
        self._unanswered_hellos += 1  # `ready` says whose voice it is now
        voice = self._speech.fallback_voice
        return self._configure(replace(self.config, voice=voice, output_format=self.options.upstream_output), now)

    def _configure(self, config: SessionConfig, now: float) -> Step:
        event_id = self._next_id()
        self._updates[event_id] = (config, self.options)
        self._answer_by = now + CONNECT_TIMEOUT_S
        self._emit(ConfigureSession(config, event_id, teach=self._teach))
        return "configuring"

    def _roll_back(self, message: str, field: str | None) -> Step:
        """Go back to what the upstream accepted last, unless another update is still under way."""
        self._emit(TellError("hello_refused", message, field))
        if self._updates:
            return "none"
        self.config, options = self._accepted
        self._use(options)
        return "rolled_back"

    def _use(self, options: DeviceOptions) -> None:
        self.options = options
        self._emit(UseOptions(options))
