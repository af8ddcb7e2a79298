"""The sound that a client was sent, made again from the commands: item by item, through today's codec.

How much went out when was up to the clock and the network, and stands in the journal; what it was follows from the
commands, bit for bit on the same platform.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from audio.framing import Chunk
from relay.core import commands as cmd
from relay.core.events import Event, Forwarded
from relay.core.values import DeviceOptions
from relay.wire.append import decode_audio
from relay.wire.device import DeviceCodec


@dataclass(frozen=True, slots=True)
class Piece:
    """Samples of one item, in the client's format."""

    item_id: str
    samples: Chunk


class ClientStream:
    """What stands in line for the client; `take` is what the journal says went out."""

    def __init__(self, options: DeviceOptions) -> None:
        self.options = options
        self._codec = DeviceCodec(options)
        self._queue: deque[Piece] = deque()
        self._current: str | None = None

    def run(self, event: Event, commands: Sequence[cmd.Command]) -> None:
        """Carry out what concerns the client's sound."""
        for command in commands:
            match command:
                case Forwarded(kind="output_audio"):
                    self._play(command)
                case cmd.PlayStart(item_id):
                    self._finish()
                    self._current = item_id
                case cmd.PlayEnd(item_id):
                    if item_id == self._current:
                        self._finish()
                case cmd.DropAudio():
                    self._queue.clear()
                    self._codec.drop_item()
                    self._current = None
                case cmd.UseOptions(options):
                    self.options = options
                    self._codec.use(options)
                case _:
                    pass

    def take(self, n_bytes: int) -> list[Piece]:
        """The next bytes of the stream; fewer if there are no more."""
        taken: list[Piece] = []
        while n_bytes > 0 and self._queue:
            piece = self._queue.popleft()
            if len(piece.samples) > n_bytes:
                self._queue.appendleft(Piece(piece.item_id, memoryview(piece.samples)[n_bytes:]))
                piece = Piece(piece.item_id, memoryview(piece.samples)[:n_bytes])
            n_bytes -= len(piece.samples)
            taken.append(piece)
        return taken

    def _play(self, audio: Forwarded) -> None:
        try:
            samples = decode_audio(audio.raw)
        except ValueError:
            return  # reported and left out, as the outbox does
        self._append(audio.item_id, samples if self._codec.passes_down else self._codec.to_client(samples))

    def _finish(self) -> None:
        if self._current is not None:
            self._append(self._current, self._codec.end_item())
        self._current = None

    def _append(self, item_id: str, samples: Chunk) -> None:
        if samples:
            self._queue.append(Piece(item_id, samples))
