"""What went past a device's session unseen in a short while, for whoever has to know it afterwards."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pybase64

from audio.framing import Chunk
from relay.core import commands as cmd
from relay.core.events import Forwarded, TextDelta

Piece = tuple[float, int, int]
"""When how many bytes came, and how many went out."""
Happened = tuple[float, Forwarded | TextDelta, tuple[cmd.Command]]


@dataclass(slots=True)
class Passed:
    """Microphone frames and their times, `sound` of one clip as it came and as it was `sent`, and words."""

    frame_times: list[float] = field(default_factory=list)
    frames: list[bytes] = field(default_factory=list)
    item_id: str = ""
    content_index: int = 0
    response_id: str = ""
    pieces: list[Piece] = field(default_factory=list)
    sound: list[bytes] = field(default_factory=list)
    sent: list[Chunk] = field(default_factory=list)
    words: list[tuple[float, TextDelta]] = field(default_factory=list)

    def events(self) -> Iterator[Happened]:
        """All of it as events in order, each with what it led to: nothing but being passed on."""
        told = [*self._frames(), *self._pieces()]
        told += [(now, words, (cmd.TellText(words.text),)) for now, words in self.words]
        yield from sorted(told, key=_when)

    def _frames(self) -> Iterator[Happened]:
        for now, raw in zip(self.frame_times, self.frames, strict=True):
            audio = Forwarded("input_audio", "", len(raw), raw)
            yield now, audio, (audio,)

    def _pieces(self) -> Iterator[Happened]:
        for (now, n_bytes, _), samples in zip(self.pieces, self.sound, strict=True):
            raw = pybase64.b64encode(samples)
            audio = Forwarded("output_audio", self.item_id, n_bytes, raw, self.response_id, self.content_index)
            yield now, audio, (audio,)


def _when(happened: Happened) -> float:
    return happened[0]
