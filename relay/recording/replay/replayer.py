"""Replay a journal through the current rules: the same events at the same times must return the same commands.

The rules must also discard the same audio. Replay is deterministic: ids come from a counter that starts as in the
recorded session, the time from the journal.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from audio.formats import PCM16_24K
from relay.protocols.openai.proxy import counted_audio_bytes
from relay.recording.format.records import (
    EventRecord,
    InputAudioRecord,
    JournalRecord,
    OutputAudioRecord,
    TtsAudioRecord,
)
from relay.recording.format.serialize import to_json
from relay.recording.format.tags import LATENCY_TAG
from relay.recording.format.write import FORWARDED, encode_commands
from relay.recording.store.header import SessionSetup
from relay.recording.store.reader import JournalEntry
from relay.session.common.input_control import HeldInput
from relay.session.common.media_ledger import MediaLedger
from relay.session.common.media_types import InputGate, PartKey
from relay.session.common.model import Alignment
from relay.session.common.redact import redact_value
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.device.session import DeviceSession
from relay.session.device.turn_metrics import METRICS
from relay.session.realtime.events import ForwardToClient, RealtimeServerEvent

MAX_PRECEDING = 3


@dataclass(frozen=True, slots=True)
class RecordSummary:
    """A one-line summary of a record near a difference."""

    number: int
    time_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Difference:
    """The first record whose replay differs; `preceding` are the records before it.

    `recorded` and `replayed` are the commands; `recorded` is None if the audio for the client differs.
    """

    number: int
    time_s: float
    description: str
    recorded: Sequence[Any] | None = None
    replayed: Sequence[Any] = ()
    preceding: Sequence[RecordSummary] = ()


class ReplayedSession:
    """The rules of one session with input gate and media ledger, without any I/O."""

    def __init__(self, setup: SessionSetup) -> None:
        self.ledger = MediaLedger(setup.started_at)
        new_session = setup.device_session if setup.realtime is None else setup.realtime_session
        self.rules: Any = new_session(self.ledger)
        self._gate: InputGate = "held"
        self._held = HeldInput()

    def handle(self, event: Any, now: float) -> Sequence[Any]:
        """Handle an event. Returns its commands; those for ledger and gate are executed."""
        commands: Sequence[Any] = self.rules.handle(event, now)
        for command in commands:
            match command:
                case cmd.SendAudioStart(item_id, content_index):
                    self.ledger.start_part((item_id, content_index))
                case cmd.SetInputGate(gate):
                    self._gate = gate
                    if gate != "held":
                        self._held.take()
                case cmd.ReleaseInput(until_bytes):
                    self._held.take(until_bytes)
        return commands

    def receive_input(self, n_bytes: int) -> None:
        """Count audio from the client."""
        ledger = self.ledger
        ledger.input_bytes += n_bytes
        if self._gate == "held":
            ledger.drop_input(self._held.add(b"", n_bytes, ledger.input_bytes, self._input_bytes_per_ms))

    def discards_output(self, response_id: str, key: PartKey) -> bool:
        """Return whether audio from the upstream is discarded. The first of a part follows its `OutputAudioStarted`."""
        return response_id in self.rules.discarded_responses or key not in self.rules.started_parts

    def accept_output(self, key: PartKey, n_bytes: int, now: float) -> None:
        """Count accepted audio from the upstream."""
        self.ledger.add_output(key, n_bytes, now)

    def forward_delta(self, n_bytes: int, now: float) -> None:
        """Count a delta that was forwarded to a Realtime client; a text delta has no bytes."""
        self.ledger.add_unpaced_output(n_bytes, now, self.rules.delta_forwarding.output_bytes_per_ms)

    def discards_tts_audio(self, context_id: str) -> bool:
        """Return whether TTS audio of a context is discarded."""
        return self.rules.part_for_context(context_id) is None

    def accept_tts_audio(self, context_id: str, n_bytes: int, alignment: Alignment | None, now: float) -> Sequence[Any]:
        """Handle accepted TTS audio. Returns the commands of its event."""
        self.ledger.add_tts_output(self.rules.part_for_context(context_id), n_bytes)
        return self.handle(ev.TtsAudio(context_id, n_bytes, alignment), now)

    @property
    def _input_bytes_per_ms(self) -> int:
        rules = self.rules
        return (rules.options.input if isinstance(rules, DeviceSession) else PCM16_24K).bytes_per_ms


class Replayer:
    """Replays one session; `step` takes the journal's entries in order.

    `commands` and `discarded` are the results of the last entry.
    """

    def __init__(self, setup: SessionSetup) -> None:
        self.commands: Sequence[Any] = ()
        self.discarded = False
        self.session = ReplayedSession(setup)
        self._recent: deque[tuple[int, JournalRecord]] = deque(maxlen=MAX_PRECEDING)

    @property
    def preceding(self) -> tuple[RecordSummary, ...]:
        """Summaries of the last records without a difference."""
        return tuple(RecordSummary(number, record.time_s, summarize(record)) for number, record in self._recent)  # type: ignore[union-attr]

    def step(self, entry: JournalEntry) -> Difference | None:
        """Replay an entry. Returns the difference, if there is one."""
        record = entry.record
        self.commands, self.discarded = (), False
        match record:
            case EventRecord():
                difference = self._replay_event(record)
            case InputAudioRecord():
                self.session.receive_input(record.n_bytes)
                difference = None
            case OutputAudioRecord():
                difference = self._replay_output(record)
            case TtsAudioRecord():
                difference = self._replay_tts_audio(record)
            case _:
                return None
        if difference is not None:
            recorded, replayed = difference
            return Difference(entry.number, record.time_s, summarize(record), recorded, replayed, self.preceding)
        self._recent.append((entry.number, record))
        return None

    def _replay_event(self, record: EventRecord) -> tuple[Sequence[Any], Sequence[Any]] | None:
        if (
            isinstance(record.event, RealtimeServerEvent)
            and not record.event.body
            and record.stored_commands == (FORWARDED,)
        ):
            # A text delta, or an audio delta with invalid base64: the rules do not read it.
            self.session.forward_delta(counted_audio_bytes(bytes(record.event.raw)), record.time_s)
            self.commands = (ForwardToClient(record.event.raw),)
            return None
        recorded = [f"raised {record.raised}"] if record.raised is not None else list(record.stored_commands or ())
        try:
            self.commands = self.session.handle(record.event, record.time_s)
        except Exception as error:  # a recorded exception is compared as well
            is_same = record.raised is not None and record.raised.partition(":")[0] == type(error).__name__
            return None if is_same else (recorded, [f"raised {type(error).__name__}: {error}"])
        replayed = encode_commands(record.event, self.commands)
        is_same = record.stored_commands is not None and _is_same(replayed, record.stored_commands)
        return None if is_same else (recorded, replayed)

    def _replay_output(self, record: OutputAudioRecord) -> tuple[Sequence[Any], Sequence[Any]] | None:
        if record.envelope is not None:
            self.session.forward_delta(record.n_bytes, record.time_s)
            return None
        key = record.item_id, record.content_index
        self.discarded = self.session.discards_output(record.response_id, key)
        if not self.discarded:
            self.session.accept_output(key, record.n_bytes, record.time_s)
        return self._compare_discarded(record.discarded)

    def _replay_tts_audio(self, record: TtsAudioRecord) -> tuple[Sequence[Any], Sequence[Any]] | None:
        self.discarded = self.session.discards_tts_audio(record.context_id)
        if self.discarded or record.discarded:
            return self._compare_discarded(record.discarded)
        try:
            self.commands = self.session.accept_tts_audio(
                record.context_id, record.n_bytes, record.alignment, record.time_s
            )
        except Exception as error:  # as for any other event
            return record.stored_commands, [f"raised {type(error).__name__}: {error}"]
        replayed = encode_commands(None, self.commands)
        return None if _is_same(replayed, record.stored_commands) else (record.stored_commands, replayed)

    def _compare_discarded(self, was_discarded: bool) -> tuple[Sequence[Any], Sequence[Any]] | None:
        if was_discarded == self.discarded:
            return None
        discarded, accepted = ["the audio is discarded"], ["the audio is accepted"]
        return (discarded, accepted) if was_discarded else (accepted, discarded)


def _is_same(replayed: Sequence[Any], recorded: Sequence[Any]) -> bool:
    # The replayed commands are redacted when they are encoded. Recorded ones may predate a redaction rule.
    recorded = [command if command == FORWARDED else redact_value(command) for command in recorded]
    return len(replayed) == len(recorded) and all(map(_is_same_command, replayed, recorded))


def _is_same_command(replayed: Any, recorded: Any) -> bool:
    if isinstance(replayed, dict) and replayed["t"] == LATENCY_TAG:
        new_metrics = [
            metric.name for metric in METRICS if metric.is_optional_in_recordings and metric.name not in recorded
        ]
        replayed = {name: value for name, value in replayed.items() if name not in new_metrics}
    return bool(replayed == recorded)


def summarize(record: JournalRecord) -> str:
    """Summarize a record: the name and fields of its event, or the length of its audio."""
    match record:
        case InputAudioRecord(_, n_bytes) | EventRecord(n_audio_bytes=n_bytes) if n_bytes:
            return f"audio from the client, {n_bytes} bytes"
        case OutputAudioRecord(_, n_bytes, _, item_id):
            return f"audio of {item_id or 'the upstream'}, {n_bytes} bytes"
        case TtsAudioRecord(_, n_bytes, context_id):
            return f"TTS audio of {context_id}, {n_bytes} bytes"
        case EventRecord(event=RealtimeServerEvent(raw)):
            return f"from the upstream: {bytes(raw).decode(errors='replace'):.160}"
        case EventRecord(event=event):
            return _summarize_event(redact_value(to_json(event)))
    return type(record).__name__


def _summarize_event(obj: dict[str, Any]) -> str:
    fields = ", ".join(f"{name}={value!r:.60}" for name, value in obj.items() if name != "t" and value is not None)
    return f"{obj['t']}({fields})"
