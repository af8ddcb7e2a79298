"""The initial configuration of a device session, and the changes that the client negotiates by `hello`.

    hello ──► options at once ──session.update──► upstream ──session.updated──► active configuration
                                                     └──error, timeout──► both as last accepted

The client's side (`options`) changes with the hello. The upstream's side (`config`) changes when the upstream accepts
it. Several updates may be pending, and the last one decides. If it is refused, both sides go back to what the upstream
accepted last. A failed external voice is replaced in the same way, without a hello. Each method returns a
`NegotiationStep`, which the session executes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from relay.session.common.limits import CONNECT_TIMEOUT_S, IgnoredCounts
from relay.session.common.model import ELEVENLABS_PREFIX, DeviceOptions, SessionConfig, TtsOptions, TurnDetection
from relay.session.common.policy import Policy
from relay.session.common.session_state import Phase, SessionState
from relay.session.device import events as ev
from relay.session.device.commands import ApplyOptions, Command, ConfigureSession, SendError, SendReady
from relay.session.tools.client_calls import merge_tools

MAX_UPDATES = 4
"""Configurations that may await the upstream's answer; each may hold 1 MiB of tools."""

NegotiationStep = Literal["none", "chosen", "configuring", "active", "rolled_back", "refused"]
"""`chosen`: this will be the first configuration. `configuring`: an update was sent upstream. `active`,
`rolled_back`: the session is ready. `refused`: the session ends."""


@dataclass(frozen=True, slots=True)
class InitialSession:
    """The start of a session; `model` is None if the configured one is used.

    `missing` names a value for which the policy allows no default. Then the session is refused.
    """

    config: SessionConfig
    model: str | None = None
    missing: Literal["model", "voice"] | None = None


def initial_session(
    config: SessionConfig,
    policy: Policy,
    *,
    model: str | None = None,
    client_voice: str | None = None,
    external_voice: str | None = None,
    has_external_voices: bool = False,
) -> InitialSession:
    """Return the start of a device session: `config`, which comes from the settings, within the limits of its policy.

    `model` is the configured one, None if the policy does not apply to it. `client_voice` is the client's, which has
    been validated. `external_voice` is the settings' external voice, which takes precedence over the model's own.
    """
    voice = client_voice or policy.default_voice(
        external_voice, config.voice, kind=None if has_external_voices else "model"
    )
    policy_model = None if model is None else policy.default_model(model)
    limits = policy.realtime
    initial = replace(
        config,
        voice=voice,
        instructions=policy.combine_instructions(None, config.instructions),
        transcription_model=policy.transcription_model(config.transcription_model),
        tools=tuple(tool for tool in config.tools if policy.allows_tool(tool.name)),
        max_output_tokens=limits.max_output_tokens,
        effort=limits.max_effort,
    )
    if model is not None and policy_model is None:
        return InitialSession(initial, missing="model")
    if voice is None and config.voice is not None:
        return InitialSession(initial, missing="voice")
    return InitialSession(initial, None if policy_model == model else policy_model)


class Negotiation:
    """Options and configuration of one session. Commands go to `emit`, ids come from `next_id`.

    `tts_options` is None if the relay has no external voices.
    """

    def __init__(
        self,
        config: SessionConfig,
        options: DeviceOptions,
        policy: Policy,
        tts_options: TtsOptions | None,
        state: SessionState,
        ignored_counts: IgnoredCounts,
        emit: Callable[[Command], None],
        next_id: Callable[[], str],
    ) -> None:
        self.options = options = replace(options, has_external_voice=config.external_voice is not None)
        """The active options of the client's side."""
        self.config = replace(config, input_format=options.upstream_input, output_format=options.upstream_output)
        """The configuration that the upstream has accepted, or that is requested first."""
        self._policy = policy
        self._tts_options = tts_options
        self._state = state
        self._server_tools = config.tools
        self._ignored_counts = ignored_counts
        self._emit = emit
        self._next_id = next_id
        self._include_examples = False
        self._updates: dict[str, tuple[SessionConfig, DeviceOptions]] = {}
        self._accepted_state = (self.config, options)
        self._answer_by = 0.0
        self._unanswered_hellos = 0

    @property
    def deadline(self) -> float | None:
        """The time for the next call of `tick`; None if no update is pending."""
        return self._answer_by if self._updates else None

    @property
    def is_full(self) -> bool:
        """Whether too many updates are pending for another hello."""
        return len(self._updates) >= MAX_UPDATES

    def handle_hello(self, event: ev.Hello, now: float) -> NegotiationStep:
        """Apply what the policy allows, and send the upstream an update if that changes its configuration."""
        latest = next(reversed(self._updates.values()), (self.config, self.options))[0]
        new_config = self._negotiate(event, latest)
        self._unanswered_hellos += 1
        if self._state.phase is Phase.CONNECTING:
            self.config = new_config
            return "chosen"
        if new_config != latest:
            return self._configure(new_config, now)
        if self._state.is_ready:
            self._accepted_state = (self.config, self.options)
            return "active"
        return "none"

    def _negotiate(self, hello: ev.Hello, config: SessionConfig) -> SessionConfig:
        """Apply the options of a hello that are allowed. Returns `config` with its other allowed settings."""
        policy = self._policy
        denied_fields = dict(_denied_fields(hello, policy))
        allowed = set(hello.fields_set) - denied_fields.keys()
        is_reported = policy.realtime.denied_fields == "refuse"
        refusals = [(message, name) for name, message in denied_fields.items()] if is_reported else []
        is_external = (hello.voice or "").startswith(ELEVENLABS_PREFIX)
        if "voice" in allowed and is_external and self._tts_options is None:
            allowed.discard("voice")
            refusals.append(("This relay has no ElevenLabs voices; the voice is unchanged.", "voice"))
        tools, refused_names = merge_tools(self._server_tools, hello.tools if "tools" in allowed else ())
        refusals += [(f"The tool {name} is the relay's own; rename yours.", "tools") for name in refused_names]
        for message, field in refusals:
            self._ignored_counts.count("(hello fields refused)")
            self._emit(SendError("not_allowed", message, field))
        new_config = _apply_to_config(config, hello, allowed, policy)
        options = replace(
            _apply_to_options(self.options, hello, allowed), has_external_voice=new_config.external_voice is not None
        )
        self._apply_options(options)
        return replace(
            new_config,
            tools=tools if "tools" in allowed else config.tools,
            input_format=options.upstream_input,
            output_format=options.upstream_output,
        )

    def answer_hellos(self) -> None:
        """Answer each hello with the active settings."""
        for _ in range(self._unanswered_hellos):
            self._emit(SendReady(self.options, self.config))
        self._unanswered_hellos = 0

    def on_session_created(self, event: ev.SessionCreated, now: float) -> NegotiationStep:
        """Configure the upstream after its first `session.created`."""
        self._include_examples = event.engine is not None
        return self._configure(self.config, now) if self._state.phase is Phase.CONNECTING else "none"

    def on_session_updated(self) -> NegotiationStep:
        """Handle the acceptance of the oldest update."""
        if not self._updates:
            return "none"
        self._accepted_state = self._updates.pop(next(iter(self._updates)))
        if self._updates:
            return "none"  # a hello came in between, and its update is still pending
        self.config = self._accepted_state[0]
        return "active"

    def on_upstream_error(self, event: ev.UpstreamErrorEvent) -> NegotiationStep | None:
        """Handle an error of the upstream. Returns None if it does not refuse an update."""
        if event.event_id is None or self._updates.pop(event.event_id, None) is None:
            return None
        if self._state.was_ready or self._updates:
            return self._roll_back(event.message, event.param)
        self._emit(SendError("session_refused", event.message, event.param))
        return "refused"

    def tick(self, now: float) -> NegotiationStep:
        """Roll back updates that the upstream has not answered in time."""
        if not self._updates or now < self._answer_by:
            return "none"
        self._updates.clear()
        return self._roll_back("The upstream did not answer; the previous settings are active.", None)

    def fall_back(self, now: float) -> NegotiationStep:
        """Switch to the model's own voice, as the external one has failed."""
        assert self._tts_options is not None
        self._apply_options(replace(self.options, has_external_voice=False))
        self._unanswered_hellos += 1  # `ready` names the new voice
        voice = self._tts_options.fallback_voice
        return self._configure(replace(self.config, voice=voice, output_format=self.options.upstream_output), now)

    def _configure(self, config: SessionConfig, now: float) -> NegotiationStep:
        event_id = self._next_id()
        self._updates[event_id] = (config, self.options)
        self._answer_by = now + CONNECT_TIMEOUT_S
        self._emit(ConfigureSession(config, event_id, include_examples=self._include_examples))
        return "configuring"

    def _roll_back(self, message: str, field: str | None) -> NegotiationStep:
        """Go back to what the upstream accepted last, unless another update is still pending."""
        self._emit(SendError("hello_refused", message, field))
        if self._updates:
            return "none"
        self.config, options = self._accepted_state
        self._apply_options(options)
        return "rolled_back"

    def _apply_options(self, options: DeviceOptions) -> None:
        self.options = options
        self._emit(ApplyOptions(options))


def _denied_fields(hello: ev.Hello, policy: Policy) -> Iterator[tuple[str, str]]:
    """Yield the fields that the policy denies this client, each with an error message."""
    needs = {"instructions": "instructions"} | ({"tools": "client_tools"} if hello.tools else {})
    for name in hello.fields_set:
        if name not in policy.hello_fields or (name in needs and not policy.allows(needs[name])):
            yield name, f"This client may not set {name}; its other fields are active."
        elif name == "voice" and hello.voice and not policy.allows_voice(hello.voice):
            yield name, "This client may not choose that voice; the voice is unchanged."
        elif name == "language" and hello.language and not policy.allows_phrase(hello.language):
            yield name, "This client may name a language in at most three words; the language is unchanged."


def _apply_to_options(options: DeviceOptions, hello: ev.Hello, allowed: set[str]) -> DeviceOptions:
    return replace(
        options,
        input=hello.input if "input" in allowed and hello.input else options.input,
        output=hello.output if "output" in allowed and hello.output else options.output,
        max_ahead_ms=hello.max_ahead_ms if "maxAheadMs" in allowed else options.max_ahead_ms,
        half_duplex=bool(hello.half_duplex) if "duplex" in allowed else options.half_duplex,
    )


def _apply_to_config(config: SessionConfig, hello: ev.Hello, allowed: set[str], policy: Policy) -> SessionConfig:
    if "voice" in allowed and hello.voice:
        config = replace(config, voice=hello.voice)
    if "instructions" in allowed and hello.instructions is not None:
        config = replace(config, instructions=policy.combine_instructions(hello.instructions))
    if "language" in allowed and hello.language is not None:
        config = replace(config, language=hello.language or None)
    if "turn" in allowed and hello.turn and hello.turn != config.turn.kind:
        config = replace(config, turn=TurnDetection(kind=hello.turn))
    return config
