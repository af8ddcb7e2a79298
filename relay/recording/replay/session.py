"""A session made again, with what its audio lines did besides sending: counting, holding back, discarding.

Pure as the rules are: ids come from a counter that starts where the recorded one did, time from the journal.
"""

from collections.abc import Sequence
from typing import Any

from audio.formats import PCM16_24K
from relay.core import commands as cmd
from relay.core import events as ev
from relay.core.values import Alignment
from relay.recording.header import Beginning
from relay.session.common.held_input import HeldInput
from relay.session.common.media_ledger import MediaLedger
from relay.session.common.media_types import InputGate, PartKey
from relay.session.device.session import DeviceSession


class ReplayedSession:
    """The rules of one session, and the gates and sums between them and the audio. Nothing is sent anywhere."""

    def __init__(self, beginning: Beginning) -> None:
        self.ledger = MediaLedger(beginning.started_at)
        new_session = beginning.device_session if beginning.realtime is None else beginning.realtime_session
        self.rules: Any = new_session(self.ledger)
        self._gate: InputGate = "held"
        self._held = HeldInput()

    def handle(self, event: Any, now: float) -> Sequence[Any]:
        """Let an event happen; the commands that follow, of which those for the audio lines are carried out."""
        commands: Sequence[Any] = self.rules.handle(event, now)
        for command in commands:
            match command:
                case cmd.PlayStart(item_id, content_index):
                    self.ledger.start_part((item_id, content_index))
                case cmd.SetInputGate(gate):
                    self._gate = gate
                    if gate != "held":
                        self._held.take()
                case cmd.ReleaseInput(until_bytes):
                    self._held.take(until_bytes)
        return commands

    def input(self, n_bytes: int) -> None:
        """Audio of the client's came."""
        ledger = self.ledger
        ledger.input_bytes += n_bytes
        if self._gate == "held":
            ledger.drop_input(self._held.add(b"", n_bytes, ledger.input_bytes, self._input_bytes_per_ms))

    def discards_output(self, response_id: str, key: PartKey) -> bool:
        """Whether a delta of the upstream's goes no further; its `OutputStarted` has happened, if it was the first."""
        return response_id in self.rules.discarded or key not in self.rules.started

    def output(self, key: PartKey, n_bytes: int, now: float) -> None:
        """A delta of the upstream's audio was accepted."""
        self.ledger.add_output(key, n_bytes, now)

    def output_frame(self, n_bytes: int, now: float) -> None:
        """A delta went to a Realtime client; one of text has no bytes."""
        self.ledger.add_played_at_once(n_bytes, now, self.rules.deltas.bytes_per_ms)

    def discards_speech(self, context_id: str) -> bool:
        """Whether nobody waits for audio of a context."""
        return self.rules.spoken_part(context_id) is None

    def speech(self, context_id: str, n_bytes: int, alignment: Alignment | None, now: float) -> Sequence[Any]:
        """Audio of an external voice was accepted; the commands of its event."""
        self.ledger.add_speech(self.rules.spoken_part(context_id), n_bytes)
        return self.handle(ev.VoiceSpoke(context_id, n_bytes, alignment), now)

    @property
    def _input_bytes_per_ms(self) -> int:
        rules = self.rules
        return (rules.options.input if isinstance(rules, DeviceSession) else PCM16_24K).bytes_per_ms
