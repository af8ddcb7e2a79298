"""The layout of tracks: bursts are moved to when they were spoken, pauses stay, interruptions end playback."""

from audio.formats import AudioFormat
from relay.recording.derive.track_layout import PlayedClip, layout_input, layout_playback

TEN = AudioFormat("pcm16", 8000)  # 16 bytes a ms
CHUNK = 20 * 16


def starts(chunks: list[tuple[float, int]]) -> list[tuple[float, int]]:
    return [(round(run.start_s, 3), run.n_bytes) for run in layout_input(chunks, TEN).segments]


def test_sound_in_time_is_one_run() -> None:
    assert starts([(0.02 * n, CHUNK) for n in range(1, 51)]) == [(0.0, 50 * CHUNK)]


def test_a_stall_that_is_caught_up_leaves_no_hole() -> None:
    stalled = [(0.02 * n if n < 10 else max(0.02 * n, 0.5), CHUNK) for n in range(1, 51)]
    assert starts(stalled) == [(0.0, 50 * CHUNK)]


def test_a_pause_stays_a_pause() -> None:
    paused = [(0.02 * n, CHUNK) for n in range(1, 11)] + [(3 + 0.02 * n, CHUNK) for n in range(1, 11)]
    assert starts(paused) == [(0.0, 10 * CHUNK), (3.0, 10 * CHUNK)]


def test_a_file_sent_at_once_begins_where_it_can() -> None:
    assert starts([(1.0, CHUNK)] * 500) == [(0.0, 500 * CHUNK)]


def spans(*clips: PlayedClip) -> dict[str, tuple[float, float]]:
    return {
        item: (round(start_s, 3), round(end_s, 3)) for item, (start_s, end_s) in layout_playback(clips, TEN)[1].items()
    }


def test_clips_follow_each_other_and_end_where_they_were_cut() -> None:
    first = PlayedClip("a", chunks=[(1.0, 0, 16_000), (1.0, 16_000, 16_000)])
    second = PlayedClip("b", chunks=[(1.5, 32_000, 16_000)], cut_ms=400)
    unheard = PlayedClip("c", chunks=[(1.6, 48_000, 16_000)], cut_ms=0)
    assert spans(first, second, unheard) == {"a": (1.1, 3.1), "b": (3.1, 3.5), "c": (3.5, 3.5)}


def test_what_the_client_says_of_its_playback_wins_over_the_guess() -> None:
    clip = PlayedClip("a", chunks=[(1.0, 0, 16_000)])
    clip.on_acknowledged(1.65, 300)
    clip.on_acknowledged(1.80, 500)
    assert spans(clip) == {"a": (1.3, 2.3)}


def test_sound_that_came_too_late_leaves_a_hole() -> None:
    runs, _ = layout_playback([PlayedClip("a", chunks=[(1.0, 0, 1600), (2.0, 1600, 1600)])], TEN)
    assert [round(run.start_s, 3) for run in runs.segments] == [1.1, 2.0]
