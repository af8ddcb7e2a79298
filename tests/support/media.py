"""What the uplink and the downlink do with audio, without sockets: for tests of the rules."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from audio.framing import BytesLike
from relay.protocols.openai.proxy import ProxyCodec, audio_offset
from relay.session.common.input_control import HeldInput
from relay.session.common.media_types import InputGate, RawDelta
from relay.session.common.model import Alignment
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.device.session import DeviceSession
from relay.session.realtime.events import RealtimeServerEvent
from relay.session.realtime.session import RealtimeSession


class InputAudio(NamedTuple):
    """Audio from the client; `raw` is what the upstream gets if it is forwarded."""

    raw: BytesLike

    @property
    def n_bytes(self) -> int:
        return len(self.raw)


class OutputAudio(NamedTuple):
    """A delta of the upstream's audio."""

    response_id: str
    item_id: str
    content_index: int
    n_bytes: int


class SpeechAudio(NamedTuple):
    """Audio of an external voice."""

    context_id: str
    n_bytes: int
    alignment: Alignment | None = None


def decode_deltas_and_events(
    codec: ProxyCodec, raw: bytes
) -> list[RawDelta | RealtimeServerEvent | ev.MalformedUpstreamMessage]:
    """What the downlink of a Realtime client makes of a message of the upstream's."""
    n_bytes = codec.delta_audio_bytes(raw)
    if n_bytes >= 0:
        return [RawDelta(raw, n_bytes, audio_offset(raw) if n_bytes else -1)]
    return [*codec.decode_upstream(raw)]


class MediaPath:
    """Uplink and downlink of one session. Forwarded audio is in its place among the commands."""

    def __init__(self, session: DeviceSession | RealtimeSession) -> None:
        self.session: Any = session
        self.gate: InputGate = "held"
        self._held = HeldInput()

    def handle(self, event: Any, now: float) -> list[Any]:
        """Handle an event or audio. Returns the commands and the forwarded audio, in order."""
        match event:
            case InputAudio():
                return self._input(event, now)
            case OutputAudio():
                return self._output(event, now)
            case SpeechAudio():
                return self._speech(event, now)
            case _:
                return self._executed(self.session.handle(event, now))

    def _executed(self, commands: Sequence[Any]) -> list[Any]:
        done: list[Any] = []
        for command in commands:
            match command:
                case cmd.SetInputGate(gate):
                    self.gate = gate
                    done += self._released(None) if gate != "held" else []
                case cmd.ReleaseInput(until_bytes):
                    done += self._released(until_bytes)
                case _:
                    if isinstance(command, cmd.SendAudioStart):
                        self.session.ledger.start_part((command.item_id, command.content_index))
                    done.append(command)
        return done

    def _released(self, until_bytes: int | None) -> list[InputAudio]:
        return [sent for raw in self._held.take(until_bytes) for sent in self._sent(raw)]

    def _sent(self, raw: BytesLike) -> list[InputAudio]:
        if self.gate == "muted":
            return [InputAudio(self.session.options.input.silence(len(raw)))]
        return [] if self.gate == "closed" else [InputAudio(raw)]

    def _input(self, audio: InputAudio, now: float) -> list[Any]:
        ledger = self.session.ledger
        ledger.input_bytes += audio.n_bytes
        if self.gate != "held":
            return [*self._sent(audio.raw)]
        bytes_per_ms = self.session.options.input.bytes_per_ms if isinstance(self.session, DeviceSession) else 48
        ledger.drop_input(self._held.add(audio.raw, audio.n_bytes, ledger.input_bytes, bytes_per_ms))
        return []

    def _output(self, audio: OutputAudio, now: float) -> list[Any]:
        session, key = self.session, (audio.item_id, audio.content_index)
        if audio.response_id in session.discarded_responses:
            return []
        done: list[Any] = []
        if key not in session.started_parts:
            done = self._executed(session.handle(ev.OutputAudioStarted(audio.response_id, *key), now))
        if key in session.started_parts:
            session.ledger.add_output(key, audio.n_bytes, now)
            done.append(audio)
        return done

    def _speech(self, audio: SpeechAudio, now: float) -> list[Any]:
        key = self.session.part_for_context(audio.context_id)
        if key is None:
            return []
        self.session.ledger.add_tts_output(key, audio.n_bytes)
        done = self._executed(self.session.handle(ev.TtsAudio(*audio), now))
        return [*done, OutputAudio("", *key, audio.n_bytes)] if audio.n_bytes else done
