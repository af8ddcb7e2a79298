"""A recorded journal through today's rules: the same events at the same times must lead to the same commands.

What the rules decide about audio must be the same as well: which of it is discarded. Pure as the rules are: ids come
from a counter that starts where the recorded one did, time from the journal.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from audio.formats import PCM16_24K
from relay.protocols.openai.proxy import counted_audio_bytes
from relay.recording.format.lines import EventRecord, InputAudioRecord, JournalRecord, OutputAudioRecord, TtsAudioRecord
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
    """A line near a difference, in short."""

    number: int
    time_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Difference:
    """The first line that is not the same today; `preceding` are the lines that led to it.

    `recorded` and `replayed` are what the rules did; None where the audio for the client is another one.
    """

    number: int
    time_s: float
    description: str
    recorded: Sequence[Any] | None = None
    replayed: Sequence[Any] = ()
    preceding: Sequence[RecordSummary] = ()


class ReplayedSession:
    """The rules of one session, and the gates and sums between them and the audio. Nothing is sent anywhere."""

    def __init__(self, setup: SessionSetup) -> None:
        self.ledger = MediaLedger(setup.started_at)
        new_session = setup.device_session if setup.realtime is None else setup.realtime_session
        self.rules: Any = new_session(self.ledger)
        self._gate: InputGate = "held"
        self._held = HeldInput()

    def handle(self, event: Any, now: float) -> Sequence[Any]:
        """Let an event happen; the commands that follow, of which those for the audio lines are carried out."""
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
        """Audio of the client's came."""
        ledger = self.ledger
        ledger.input_bytes += n_bytes
        if self._gate == "held":
            ledger.drop_input(self._held.add(b"", n_bytes, ledger.input_bytes, self._input_bytes_per_ms))

    def discards_output(self, response_id: str, key: PartKey) -> bool:
        """Whether a delta of the upstream's goes no further; its `OutputAudioStarted` has happened, if it was the
        first.
        """
        return response_id in self.rules.discarded_responses or key not in self.rules.started_parts

    def accept_output(self, key: PartKey, n_bytes: int, now: float) -> None:
        """A delta of the upstream's audio was accepted."""
        self.ledger.add_output(key, n_bytes, now)

    def forward_delta(self, n_bytes: int, now: float) -> None:
        """A delta went to a Realtime client; one of text has no bytes."""
        self.ledger.add_unpaced_output(n_bytes, now, self.rules.delta_forwarding.output_bytes_per_ms)

    def discards_tts_audio(self, context_id: str) -> bool:
        """Whether nobody waits for audio of a context."""
        return self.rules.part_for_context(context_id) is None

    def accept_tts_audio(self, context_id: str, n_bytes: int, alignment: Alignment | None, now: float) -> Sequence[Any]:
        """Audio of an external voice was accepted; the commands of its event."""
        self.ledger.add_tts_output(self.rules.part_for_context(context_id), n_bytes)
        return self.handle(ev.TtsAudio(context_id, n_bytes, alignment), now)

    @property
    def _input_bytes_per_ms(self) -> int:
        rules = self.rules
        return (rules.options.input if isinstance(rules, DeviceSession) else PCM16_24K).bytes_per_ms


class Replayer:
    """One session again. Feed it the journal's entries in order.

    `commands` are those of the last entry; none followed where it was `discarded`, by today's rules.
    """

    def __init__(self, setup: SessionSetup) -> None:
        self.commands: Sequence[Any] = ()
        self.discarded = False
        self.session = ReplayedSession(setup)
        self._before: deque[tuple[int, JournalRecord]] = deque(maxlen=MAX_PRECEDING)

    @property
    def preceding(self) -> tuple[RecordSummary, ...]:
        """The last lines that were the same."""
        return tuple(RecordSummary(number, line.time_s, summarize(line)) for number, line in self._before)  # type: ignore[union-attr]

    def step(self, entry: JournalEntry) -> Difference | None:
        """Let what is in a line happen again; the difference, if there is one."""
        line = entry.record
        self.commands, self.discarded = (), False
        match line:
            case EventRecord():
                outcome = self._happened(line)
            case InputAudioRecord():
                self.session.receive_input(line.n_bytes)
                outcome = None
            case OutputAudioRecord():
                outcome = self._output(line)
            case TtsAudioRecord():
                outcome = self._speech(line)
            case _:
                return None
        if outcome is not None:
            recorded, today = outcome
            return Difference(entry.number, line.time_s, summarize(line), recorded, today, self.preceding)
        self._before.append((entry.number, line))
        return None

    def _happened(self, line: EventRecord) -> tuple[Sequence[Any], Sequence[Any]] | None:
        if isinstance(line.event, RealtimeServerEvent) and not line.event.body and line.stored_commands == (FORWARDED,):
            # A delta of text, or of audio that could not be cut out: the rules do not read it.
            self.session.forward_delta(counted_audio_bytes(bytes(line.event.raw)), line.time_s)
            self.commands = (ForwardToClient(line.event.raw),)
            return None
        recorded = [f"raised {line.raised}"] if line.raised is not None else list(line.stored_commands or ())
        try:
            self.commands = self.session.handle(line.event, line.time_s)
        except Exception as error:  # what our rules raised then is compared like all else
            is_same = line.raised is not None and line.raised.partition(":")[0] == type(error).__name__
            return None if is_same else (recorded, [f"raised {type(error).__name__}: {error}"])
        today = encode_commands(line.event, self.commands)
        is_same = line.stored_commands is not None and _is_same(today, line.stored_commands)
        return None if is_same else (recorded, today)

    def _output(self, line: OutputAudioRecord) -> tuple[Sequence[Any], Sequence[Any]] | None:
        if line.envelope is not None:
            self.session.forward_delta(line.n_bytes, line.time_s)
            return None
        key = line.item_id, line.content_index
        self.discarded = self.session.discards_output(line.response_id, key)
        if not self.discarded:
            self.session.accept_output(key, line.n_bytes, line.time_s)
        return self._gates(line.discarded)

    def _speech(self, line: TtsAudioRecord) -> tuple[Sequence[Any], Sequence[Any]] | None:
        self.discarded = self.session.discards_tts_audio(line.context_id)
        if self.discarded or line.discarded:
            return self._gates(line.discarded)
        try:
            self.commands = self.session.accept_tts_audio(line.context_id, line.n_bytes, line.alignment, line.time_s)
        except Exception as error:  # as for any other event
            return line.stored_commands, [f"raised {type(error).__name__}: {error}"]
        today = encode_commands(None, self.commands)
        return None if _is_same(today, line.stored_commands) else (line.stored_commands, today)

    def _gates(self, was_discarded: bool) -> tuple[Sequence[Any], Sequence[Any]] | None:
        if was_discarded == self.discarded:
            return None
        discarded, accepted = ["the audio is discarded"], ["the audio goes on"]
        return (discarded, accepted) if was_discarded else (accepted, discarded)


def _is_same(today: Sequence[Any], recorded: Sequence[Any]) -> bool:
    # What was redacted when it was written is redacted in today's as well; a journal that was redacted later
    # may hold more of it.
    recorded = [command if command == FORWARDED else redact_value(command) for command in recorded]
    return len(today) == len(recorded) and all(map(_is_same_command, today, recorded))


def _is_same_command(today: Any, recorded: Any) -> bool:
    if isinstance(today, dict) and today["t"] == LATENCY_TAG:
        later = [one.name for one in METRICS if one.is_optional_in_recordings and one.name not in recorded]
        today = {name: value for name, value in today.items() if name not in later}
    return bool(today == recorded)


def summarize(record: JournalRecord) -> str:
    """A line in short: its event's name and fields, or how much audio it is."""
    match record:
        case InputAudioRecord(_, n_bytes) | EventRecord(n_audio_bytes=n_bytes) if n_bytes:
            return f"the client's audio, {n_bytes} bytes"
        case OutputAudioRecord(_, n_bytes, _, item_id):
            return f"audio of {item_id or 'the model'}, {n_bytes} bytes"
        case TtsAudioRecord(_, n_bytes, context_id):
            return f"audio of the voice's {context_id}, {n_bytes} bytes"
        case EventRecord(event=RealtimeServerEvent(raw)):
            return f"the model's {bytes(raw).decode(errors='replace'):.160}"
        case EventRecord(event=event):
            return _shown_event(redact_value(to_json(event)))
    return type(record).__name__


def _shown_event(obj: dict[str, Any]) -> str:
    fields = ", ".join(f"{name}={value!r:.60}" for name, value in obj.items() if name != "t" and value is not None)
    return f"{obj['t']}({fields})"
