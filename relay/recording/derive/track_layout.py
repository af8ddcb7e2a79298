"""Where recorded sound lies in time: chunks that came in bursts, and clips that were cut, as runs on one clock."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from audio.formats import AudioFormat
from relay.session.device.playback import JITTER_BUFFER_MS

CATCH_UP_S = 2.0
"""How long after its time sound may come and still be taken for a delay of the network, not a pause."""


@dataclass(slots=True)
class TrackSegment:
    """Sound without a break: from `start_s` on, `n_bytes` from `offset` of its file."""

    start_s: float
    offset: int
    n_bytes: int

    def end_s(self, audio_format: AudioFormat) -> float:
        """When it ends."""
        return self.start_s + self.n_bytes / (audio_format.bytes_per_ms * 1000)


@dataclass(slots=True)
class Track:
    """Runs in order of time; what follows without a break is joined."""

    audio_format: AudioFormat
    segments: list[TrackSegment] = field(default_factory=list)

    @property
    def end_s(self) -> float:
        """When the last one ends."""
        return self.segments[-1].end_s(self.audio_format) if self.segments else 0.0

    def add(self, start_s: float, offset: int, n_bytes: int) -> float:
        """Put sound at `start_s`, or behind what is there already. Returns when it ends."""
        end_s = self.end_s
        last = self.segments[-1] if self.segments else None
        if last is not None and start_s <= end_s + 0.001 and last.offset + last.n_bytes == offset:
            last.n_bytes += n_bytes
        else:
            self.segments.append(TrackSegment(max(start_s, end_s), offset, n_bytes))
        return self.end_s


def layout_input(chunks: Sequence[tuple[float, int]], audio_format: AudioFormat) -> Track:
    """The client's chunks (arrival in s, bytes): those that came late and were caught up lie where they were spoken.

    A chunk's lag is its arrival less the sound before it. The least lag within the next `CATCH_UP_S` says what was
    only a delay; what is never caught up was a pause of the client's.
    """
    per_s = audio_format.bytes_per_ms * 1000
    lags: list[float] = []
    total = 0
    for arrival_s, n_bytes in chunks:
        total += n_bytes
        lags.append(arrival_s - total / per_s)
    runs = Track(audio_format)
    ahead: deque[int] = deque()  # of the window's chunks, those that no later one undercuts
    upto = offset = 0
    for index, (arrival_s, n_bytes) in enumerate(chunks):
        while upto < len(chunks) and chunks[upto][0] <= arrival_s + CATCH_UP_S:
            while ahead and lags[ahead[-1]] >= lags[upto]:
                ahead.pop()
            ahead.append(upto)
            upto += 1
        while ahead and ahead[0] < index:
            ahead.popleft()
        least = lags[ahead[0]] if ahead else lags[index]
        delay_s = min(lags[index] - least, CATCH_UP_S)
        runs.add(max(0.0, arrival_s - n_bytes / per_s - delay_s), offset, n_bytes)
        offset += n_bytes
    return runs


@dataclass(slots=True)
class PlayedClip:
    """One item's sound as it went out, with what the client told about its playback."""

    item_id: str
    response_id: str = ""
    chunks: list[tuple[float, int, int]] = field(default_factory=list)  # sent at (s), offset, bytes
    started_s: float | None = None  # by the client's acknowledgements
    cut_ms: int | None = None

    def acknowledged(self, now_s: float, played_ms: int) -> None:
        """The client has played that much of it."""
        if played_ms > 0:
            start_s = now_s - played_ms / 1000
            self.started_s = start_s if self.started_s is None else min(self.started_s, start_s)


def layout_playback(
    clips: Iterable[PlayedClip], audio_format: AudioFormat
) -> tuple[Track, dict[str, tuple[float, float]]]:
    """What the client's speaker gave, up to where it was cut, in the order in which it was sent; and each clip's time.

    From its start to its end, in seconds; a clip that was not sent has none.
    """
    runs, spans = Track(audio_format), dict[str, tuple[float, float]]()
    for clip in clips:
        if not clip.chunks:
            continue
        left = float("inf") if clip.cut_ms is None else clip.cut_ms * audio_format.bytes_per_ms
        first_s = clip.chunks[0][0]
        begins_s = first_s + JITTER_BUFFER_MS / 1000 if clip.started_s is None else max(clip.started_s, first_s)
        start_s = at_s = max(begins_s, runs.end_s)
        for sent_s, offset, n_bytes in clip.chunks:
            n_bytes = int(min(n_bytes, left)) // audio_format.bytes_per_sample * audio_format.bytes_per_sample
            if n_bytes <= 0:
                break
            left -= n_bytes
            at_s = runs.add(max(at_s, sent_s), offset, n_bytes)
        spans[clip.item_id] = start_s, max(at_s, start_s)
    return runs, spans
