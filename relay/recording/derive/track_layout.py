"""Lay out recorded audio on one clock: input that arrived in bursts, and playback that was interrupted."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from audio.formats import AudioFormat
from relay.session.device.playback import JITTER_BUFFER_MS

CATCH_UP_S = 2.0
"""The longest network delay of input audio; a longer one is a pause."""


@dataclass(slots=True)
class TrackSegment:
    """Continuous audio that starts at `start_s`: `n_bytes` from `offset` of its file."""

    start_s: float
    offset: int
    n_bytes: int

    def end_s(self, audio_format: AudioFormat) -> float:
        """Return the end of the segment."""
        return self.start_s + self.n_bytes / (audio_format.bytes_per_ms * 1000)


@dataclass(slots=True)
class Track:
    """Segments in order of time; adjacent ones are merged."""

    audio_format: AudioFormat
    segments: list[TrackSegment] = field(default_factory=list)

    @property
    def end_s(self) -> float:
        """The end of the last segment."""
        return self.segments[-1].end_s(self.audio_format) if self.segments else 0.0

    def add(self, start_s: float, offset: int, n_bytes: int) -> float:
        """Add audio at `start_s`, or after the last segment. Returns its end."""
        end_s = self.end_s
        last = self.segments[-1] if self.segments else None
        if last is not None and start_s <= end_s + 0.001 and last.offset + last.n_bytes == offset:
            last.n_bytes += n_bytes
        else:
            self.segments.append(TrackSegment(max(start_s, end_s), offset, n_bytes))
        return self.end_s


def layout_input(chunks: Sequence[tuple[float, int]], audio_format: AudioFormat) -> Track:
    """Lay out the chunks of a client (arrival in s, bytes): delayed ones are moved to when they were spoken.

    The lag of a chunk is its arrival minus the duration of the audio up to it. Lag above the minimum of the
    next `CATCH_UP_S` was network delay; the rest was a pause.
    """
    bytes_per_s = audio_format.bytes_per_ms * 1000
    arrivals_s = [arrival_s for arrival_s, _ in chunks]
    total_bytes = accumulate(n_bytes for _, n_bytes in chunks)
    lags_s = [arrival_s - n_bytes / bytes_per_s for arrival_s, n_bytes in zip(arrivals_s, total_bytes, strict=True)]
    track = Track(audio_format)
    offset = 0
    for (arrival_s, n_bytes), lag_s, min_lag_s in zip(chunks, lags_s, _min_lags(arrivals_s, lags_s), strict=True):
        delay_s = min(lag_s - min_lag_s, CATCH_UP_S)
        track.add(max(0.0, arrival_s - n_bytes / bytes_per_s - delay_s), offset, n_bytes)
        offset += n_bytes
    return track


def _min_lags(arrivals_s: Sequence[float], lags_s: Sequence[float]) -> Iterator[float]:
    """Yield for each chunk the minimum lag of the chunks that arrive within the next `CATCH_UP_S`."""
    candidates: deque[int] = deque()  # indices with increasing lags: the first has the minimum
    window_end = 0
    for index, arrival_s in enumerate(arrivals_s):
        while window_end < len(arrivals_s) and arrivals_s[window_end] <= arrival_s + CATCH_UP_S:
            while candidates and lags_s[candidates[-1]] >= lags_s[window_end]:
                candidates.pop()
            candidates.append(window_end)
            window_end += 1
        while candidates and candidates[0] < index:
            candidates.popleft()
        yield lags_s[candidates[0]] if candidates else lags_s[index]


@dataclass(slots=True)
class PlayedClip:
    """The audio of one item as it was sent, with its playback as reported by the client."""

    item_id: str
    response_id: str = ""
    chunks: list[tuple[float, int, int]] = field(default_factory=list)  # sent at (s), offset, bytes
    started_s: float | None = None  # by the client's acknowledgements
    cut_ms: int | None = None

    def on_acknowledged(self, now_s: float, played_ms: int) -> None:
        """Handle the client's report that it has played `played_ms`."""
        if played_ms > 0:
            start_s = now_s - played_ms / 1000
            self.started_s = start_s if self.started_s is None else min(self.started_s, start_s)


def layout_playback(
    clips: Iterable[PlayedClip], audio_format: AudioFormat
) -> tuple[Track, dict[str, tuple[float, float]]]:
    """Lay out the played audio in the order in which it was sent, each clip up to its interruption.

    Returns the track, and start and end (s) of each clip that was sent.
    """
    track, spans = Track(audio_format), dict[str, tuple[float, float]]()
    for clip in clips:
        if not clip.chunks:
            continue
        remaining_bytes = float("inf") if clip.cut_ms is None else clip.cut_ms * audio_format.bytes_per_ms
        first_s = clip.chunks[0][0]
        playback_start_s = first_s + JITTER_BUFFER_MS / 1000 if clip.started_s is None else max(clip.started_s, first_s)
        start_s = at_s = max(playback_start_s, track.end_s)
        for sent_s, offset, n_bytes in clip.chunks:
            n_bytes = int(min(n_bytes, remaining_bytes))
            n_bytes -= n_bytes % audio_format.bytes_per_sample
            if n_bytes <= 0:
                break
            remaining_bytes -= n_bytes
            at_s = track.add(max(at_s, sent_s), offset, n_bytes)
        spans[clip.item_id] = start_s, max(at_s, start_s)
    return track, spans
