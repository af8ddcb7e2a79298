"""What went past a device's session unseen in a short while, for whoever has to know it afterwards."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pybase64

from relay.core import commands as cmd
from relay.core.events import Forwarded, TextDelta

Happened = tuple[float, Forwarded | TextDelta, tuple[cmd.Command]]


@dataclass(slots=True)
class Passed:
    """Microphone frames of `frame_bytes` each, `sound` of one clip in pieces of (when, bytes), and words."""

    frame_bytes: int = 0
    frame_times: list[float] = field(default_factory=list)
    frames: bytearray = field(default_factory=bytearray)
    item_id: str = ""
    content_index: int = 0
    response_id: str = ""
    pieces: list[tuple[float, int]] = field(default_factory=list)
    sound: bytearray = field(default_factory=bytearray)
    words: list[tuple[float, TextDelta]] = field(default_factory=list)

    def events(self) -> Iterator[Happened]:
        """All of it as events in order, each with what it led to: nothing but being passed on."""
        told = [*self._frames(), *self._pieces()]
        told += [(now, words, (cmd.TellText(words.text),)) for now, words in self.words]
        yield from sorted(told, key=_when)

    def _frames(self) -> Iterator[Happened]:
        for n, now in enumerate(self.frame_times):
            raw = bytes(self.frames[n * self.frame_bytes : (n + 1) * self.frame_bytes])
            audio = Forwarded("input_audio", "", self.frame_bytes, raw)
            yield now, audio, (audio,)

    def _pieces(self) -> Iterator[Happened]:
        for now, samples in self.samples():
            raw = pybase64.b64encode(samples)
            audio = Forwarded("output_audio", self.item_id, len(samples), raw, self.response_id, self.content_index)
            yield now, audio, (audio,)

    def samples(self) -> Iterator[tuple[float, memoryview]]:
        """The pieces of the sound."""
        sound, start = memoryview(self.sound), 0
        for now, n_bytes in self.pieces:
            yield now, sound[start : start + n_bytes]
            start += n_bytes


def _when(happened: Happened) -> float:
    return happened[0]
