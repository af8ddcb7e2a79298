"""The data model of events and commands: frozen values, all storable by `relay.recording.format.tags`.

Three of them configure a session. `SessionConfig` is what the relay requests from the upstream: voice, instructions,
turn detection, tools. `DeviceOptions` is what it has agreed on with the device client: formats, pace, duplex.
`TtsOptions` says how an external voice speaks. Each is replaced as a whole and never changed, so a reference to one is
a consistent state. The values validate nothing: codecs and settings do that before they create one.
"""

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, replace
from operator import add
from typing import Any, Literal

from audio.formats import PCM16_24K, AudioFormat

TurnKind = Literal["server_vad", "semantic_vad", "manual"]
ResponseStatus = Literal["completed", "cancelled", "incomplete", "failed"]
ToolStatus = Literal["started", "progress", "done", "failed", "timeout", "cancelled"]
AudioSource = Literal["model", "tts"]
ErrorCode = Literal[
    "bad_json", "bad_message", "unknown_type", "hello_too_late", "hello_refused", "not_allowed", "commit_too_short",
    "transcription_failed", "audio_backlog", "unknown_item", "unknown_call", "too_fast", "full", "idle",
    "limit_reached", "too_many_turns", "too_many_faults", "too_big", "slow_client", "response_failed",
    "upstream_refused", "upstream_unreachable", "upstream_timeout", "upstream_stalled", "upstream_error",
    "upstream_closed", "session_refused", "session_expired", "voice_failed", "internal_error", "key_revoked",
]  # fmt: skip
"""Every `code` that an `error` message to a device client can carry."""


@dataclass(frozen=True, slots=True)
class TurnDetection:
    """How the end of the user's turn is detected; None leaves a value to the upstream's default."""

    kind: TurnKind = "server_vad"
    threshold: float | None = None
    prefix_padding_ms: int | None = None
    silence_duration_ms: int | None = None
    eagerness: Literal["low", "medium", "high", "auto"] | None = None
    create_response: bool = True
    interrupt_response: bool = True

    @property
    def upstream_creates(self) -> bool:
        """Whether the upstream creates the response to a spoken turn automatically."""
        return self.kind != "manual" and self.create_response

    @property
    def upstream_interrupts(self) -> bool:
        """Whether the upstream cancels its response when the user starts to speak."""
        return self.kind != "manual" and self.interrupt_response


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A function tool of the session, as the model sees it.

    `examples` are sentences that call it, for an engine that uses them. `visible_to_client`: the client receives its
    arguments and result. `runs_on_client`: the client runs it, within `timeout_ms`. `protected`: a client's tool of the
    same name does not replace it. `cancel_on_interrupt`: a barge-in cancels its running calls.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    examples: tuple[str, ...] = ()
    visible_to_client: bool = False
    protected: bool = False
    cancel_on_interrupt: bool = False
    runs_on_client: bool = False
    timeout_ms: int = 15_000

    def definition(self, *, with_examples: bool = False) -> dict[str, Any]:
        """Return the tool as a member of `session.update`; `with_examples` for an engine that uses them."""
        parameters = dict(self.parameters)
        if with_examples and self.examples:
            parameters["x-examples"] = list(self.examples)
        return {"type": "function", "name": self.name, "description": self.description, "parameters": parameters}


ReasoningEffort = Literal["minimal", "low", "medium", "high", "xhigh"]
"""How much a model reasons before it answers."""

ELEVENLABS_PREFIX = "elevenlabs:"
"""The prefix of an external voice's name; the id of an ElevenLabs voice follows."""


@dataclass(frozen=True, slots=True)
class TtsOptions:
    """How an external voice speaks the model's text.

    `streaming`: sentence by sentence, as they come; `final`: in one request, when the text is complete. After a failure
    the model's own `fallback_voice` speaks. None: the external voice is tried again at the next turn.
    """

    mode: Literal["streaming", "final"] = "streaming"
    fallback_voice: str | None = None


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """The configuration that the relay requests from the upstream; encoded as one `session.update`."""

    voice: str | None = None
    instructions: str = ""
    language: str | None = None
    voice_accent: str | None = None
    voice_tone: str | None = None
    turn: TurnDetection = field(default_factory=TurnDetection)
    transcription_model: str | None = None
    noise_reduction: Literal["near_field", "far_field"] | None = None
    input_format: AudioFormat = PCM16_24K
    output_format: AudioFormat = PCM16_24K
    tools: tuple[ToolSpec, ...] = ()
    max_output_tokens: int | None = None
    effort: ReasoningEffort | None = None

    @property
    def external_voice(self) -> str | None:
        """The id of the external voice that speaks instead of the model; None if the model itself speaks."""
        if self.voice is None or not self.voice.startswith(ELEVENLABS_PREFIX):
            return None
        return self.voice.removeprefix(ELEVENLABS_PREFIX)

    @property
    def upstream_turn(self) -> TurnDetection:
        """The turn detection to request upstream: it cannot know how long an external voice still speaks."""
        if self.external_voice is None:
            return self.turn
        return replace(self.turn, create_response=False, interrupt_response=False)

    @property
    def full_instructions(self) -> str:
        """The instructions with one line each for language, accent and tone, where set."""
        lines = (
            ("{}", self.instructions),
            ("Always reply in {}.", self.language),
            ("Use a {} accent while speaking.", self.voice_accent),
            ("Use a {} tone while speaking.", self.voice_tone),
        )
        return "\n".join(line.format(text.strip()) for line, text in lines if text and text.strip())


@dataclass(frozen=True, slots=True)
class UpstreamCapabilities:
    """The features in which upstreams differ; the defaults are those of OpenAI's Realtime API.

    `input_pcm` and `output_pcm` are its PCM formats. `supports_g711`: it also accepts and sends G.711.
    `supports_truncation`: it truncates an interrupted item on request; other upstreams do so by themselves.
    """

    input_pcm: AudioFormat = PCM16_24K
    output_pcm: AudioFormat = PCM16_24K
    supports_g711: bool = True
    supports_truncation: bool = True


OPENAI_CAPABILITIES = UpstreamCapabilities()


@dataclass(frozen=True, slots=True)
class DeviceOptions:
    """The options that a device client and the relay have agreed on for the client's side of the session.

    `half_duplex`: the device hears its own speaker, so its microphone is muted while an item plays.
    `has_external_voice`: the audio comes from an external voice, which supports all formats but 48 kHz. `upstream`: the
    upstream's capabilities, None for `OPENAI_CAPABILITIES`.
    """

    input: AudioFormat = AudioFormat("pcm16", 16_000)
    output: AudioFormat = AudioFormat("pcm16", 16_000)
    max_ahead_ms: int | None = 1000
    half_duplex: bool = False
    has_external_voice: bool = False
    upstream: UpstreamCapabilities | None = None

    @property
    def capabilities(self) -> UpstreamCapabilities:
        """The upstream's capabilities."""
        return self.upstream or OPENAI_CAPABILITIES

    @property
    def upstream_input(self) -> AudioFormat:
        """The format sent upstream: the upstream's PCM, or the client's G.711 where the upstream supports it."""
        upstream = self.capabilities
        return self.input if self.input.encoding != "pcm16" and upstream.supports_g711 else upstream.input_pcm

    @property
    def upstream_output(self) -> AudioFormat:
        """The format requested from the external voice, if there is one, or else from the upstream."""
        upstream = self.capabilities
        if self.has_external_voice and self.output.rate_hz <= PCM16_24K.rate_hz:
            return self.output
        return self.output if self.output.encoding != "pcm16" and upstream.supports_g711 else upstream.output_pcm


@dataclass(frozen=True, slots=True)
class Item:
    """A conversation item with the members that the relay uses; `text` is its text or transcript."""

    id: str
    kind: str
    role: str | None = None
    status: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one response, or the sum of several; cached tokens are a subset of the input (D11)."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    input_audio_tokens: int = 0
    input_text_tokens: int = 0
    cached_tokens: int = 0
    output_audio_tokens: int = 0
    output_text_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*map(add, astuple(self), astuple(other)))


@dataclass(frozen=True, slots=True)
class Alignment:
    """When each character of a chunk of speech starts, in ms from the start of the chunk, and how long it lasts."""

    chars: tuple[str, ...] = ()
    starts_ms: tuple[int, ...] = ()
    durations_ms: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SentAudio:
    """The audio of one content part that was sent to the client, with the played length by estimate."""

    item_id: str
    content_index: int
    sent_ms: int
    estimated_played_ms: int
