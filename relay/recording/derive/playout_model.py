"""Reconstruct the audio that a client was sent, from the commands and the current transcoder.

How much was sent when depends on the clock and the network, and is in the journal. The samples follow from the commands
and the accepted audio, bit for bit on the same platform.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from audio.framing import BytesLike
from relay.recording.format.records import JournalRecord, OutputAudioRecord, TtsAudioRecord
from relay.session.common.media_types import PartKey
from relay.session.common.model import DeviceOptions
from relay.session.device import commands as cmd
from relay.session.device.playout_transcoder import PlayoutTranscoder


class PlayoutChunk(NamedTuple):
    """Samples of one item, in the client's format."""

    item_id: str
    samples: BytesLike


class ReconstructedPlayout:
    """The playout queue of a recorded session; `read` as much as the journal says was sent."""

    def __init__(self, options: DeviceOptions) -> None:
        self.options = options
        self._open_part: PartKey | None = None  # the resampler may hold the end of its audio
        self._transcoder = PlayoutTranscoder(options)
        self._queue: deque[PlayoutChunk] = deque()

    @property
    def playing_item_id(self) -> str:
        """The item of the open part; empty for none."""
        return "" if self._open_part is None else self._open_part[0]

    def apply(self, record: JournalRecord, samples: BytesLike, commands: Iterable[Any]) -> None:
        """Execute the commands of a record, then queue its audio if it was accepted."""
        for command in commands:
            self._execute(command)
        match record:
            case OutputAudioRecord(item_id=item_id, discarded=False):
                self._append(item_id, self._transcoder.convert(samples))
            case TtsAudioRecord(discarded=False):  # TTS audio belongs to the open part
                self._append(self.playing_item_id, self._transcoder.convert(samples))

    def read(self, n_bytes: int) -> list[PlayoutChunk]:
        """Read the next bytes of the stream; fewer if there are no more."""
        chunks: list[PlayoutChunk] = []
        while n_bytes > 0 and self._queue:
            item_id, samples = self._queue.popleft()
            if len(samples) > n_bytes:
                rest = memoryview(samples)
                self._queue.appendleft(PlayoutChunk(item_id, rest[n_bytes:]))
                samples = rest[:n_bytes]
            n_bytes -= len(samples)
            chunks.append(PlayoutChunk(item_id, samples))
        return chunks

    def _execute(self, command: Any) -> None:
        match command:
            case cmd.SendAudioStart(item_id, content_index):
                self._end_part()
                self._open_part = (item_id, content_index)
            case cmd.SendAudioEnd(item_id, content_index) if (item_id, content_index) == self._open_part:
                self._end_part()
            case cmd.ClearPlayout():
                self._queue.clear()
                self._transcoder.discard_part()
                self._open_part = None
            case cmd.ApplyOptions(options):
                self.options = options
                self._transcoder.apply_options(options)

    def _end_part(self) -> None:
        if self._open_part is not None:
            self._append(self.playing_item_id, self._transcoder.flush_part())
        self._open_part = None

    def _append(self, item_id: str, samples: BytesLike) -> None:
        if samples:
            self._queue.append(PlayoutChunk(item_id, samples))
