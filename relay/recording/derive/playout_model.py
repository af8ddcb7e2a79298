"""The audio that a client was sent, made again from the commands: part by part, through today's transcoder.

When how much was sent depends on the clock and the network, and is in the journal. Its samples follow from the commands
and the accepted audio, bit for bit on the same platform.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from audio.framing import BytesLike
from relay.recording.format.lines import JournalRecord, OutputAudioRecord, TtsAudioRecord
from relay.session.common.media_types import PartKey
from relay.session.common.model import DeviceOptions
from relay.session.device import commands as cmd
from relay.session.device.playout_transcoder import PlayoutTranscoder


class PlayoutChunk(NamedTuple):
    """Samples of one item, in the client's format."""

    item_id: str
    samples: BytesLike


class ReconstructedPlayout:
    """What waits for the client; `read` what the journal counts as sent."""

    def __init__(self, options: DeviceOptions) -> None:
        self.options = options
        self._open_part: PartKey | None = None  # the filter may hold the end of its audio
        self._transcoder = PlayoutTranscoder(options)
        self._queue: deque[PlayoutChunk] = deque()

    @property
    def playing_item_id(self) -> str:
        """The item whose audio comes now; empty for none."""
        return "" if self._open_part is None else self._open_part[0]

    def apply(self, line: JournalRecord, samples: BytesLike, commands: Iterable[Any]) -> None:
        """Carry out the commands of a line, then queue its audio if it was accepted."""
        for command in commands:
            self._carry_out(command)
        match line:
            case OutputAudioRecord(item_id=item_id, discarded=False):
                self._append(item_id, self._transcoder.convert(samples))
            case TtsAudioRecord(discarded=False):  # an external voice speaks one part at a time
                self._append(self.playing_item_id, self._transcoder.convert(samples))

    def read(self, n_bytes: int) -> list[PlayoutChunk]:
        """The next bytes of the stream; fewer if there are no more."""
        taken: list[PlayoutChunk] = []
        while n_bytes > 0 and self._queue:
            item_id, samples = self._queue.popleft()
            if len(samples) > n_bytes:
                rest = memoryview(samples)
                self._queue.appendleft(PlayoutChunk(item_id, rest[n_bytes:]))
                samples = rest[:n_bytes]
            n_bytes -= len(samples)
            taken.append(PlayoutChunk(item_id, samples))
        return taken

    def _carry_out(self, command: Any) -> None:
        match command:
            case cmd.SendAudioStart(item_id, content_index):
                self._finish()
                self._open_part = (item_id, content_index)
            case cmd.SendAudioEnd(item_id, content_index) if (item_id, content_index) == self._open_part:
                self._finish()
            case cmd.ClearPlayout():
                self._queue.clear()
                self._transcoder.discard_part()
                self._open_part = None
            case cmd.ApplyOptions(options):
                self.options = options
                self._transcoder.apply_options(options)

    def _finish(self) -> None:
        if self._open_part is not None:
            self._append(self.playing_item_id, self._transcoder.flush_part())
        self._open_part = None

    def _append(self, item_id: str, samples: BytesLike) -> None:
        if samples:
            self._queue.append(PlayoutChunk(item_id, samples))
