"""The audio to a client, reconstructed from commands and audio."""

from audio.formats import AudioFormat
from relay.recording.derive.playout_model import ReconstructedPlayout
from relay.recording.format.records import JournalRecord, OutputAudioRecord, TtsAudioRecord
from relay.session.common.model import DeviceOptions
from relay.session.device import commands as cmd
from tests.support.scripted_recordings import tone

MODEL = AudioFormat("pcm16", 24_000)
WIDE = AudioFormat("pcm16", 48_000)


def audio(item_id: str, *, discarded: bool = False) -> OutputAudioRecord:
    return OutputAudioRecord(1.0, 4, "resp_1", item_id, 0, discarded)


def played(
    *steps: tuple[JournalRecord, bytes] | cmd.Command, options: DeviceOptions | None = None
) -> ReconstructedPlayout:
    playout = ReconstructedPlayout(options or DeviceOptions(MODEL, MODEL))
    for step in steps:
        line, samples = step if isinstance(step, tuple) else (audio("", discarded=True), b"")
        playout.apply(line, samples, () if isinstance(step, tuple) else (step,))
    return playout


def taken(playout: ReconstructedPlayout, n_bytes: int = 1 << 20) -> list[tuple[str, bytes]]:
    return [(item_id, bytes(samples)) for item_id, samples in playout.read(n_bytes)]


def test_audio_comes_in_order_and_in_the_bytes_that_are_asked_for() -> None:
    playout = played(cmd.SendAudioStart("a", 0), (audio("a"), b"1234"), (audio("a"), b"5678"))
    assert taken(playout, 6) == [("a", b"1234"), ("a", b"56")]
    assert taken(playout) == [("a", b"78")]
    assert taken(playout) == []


def test_discarded_audio_is_not_sent() -> None:
    assert taken(played(cmd.SendAudioStart("a", 0), (audio("a", discarded=True), b"1234"))) == []


def test_what_was_cleared_is_not_sent() -> None:
    playout = played(cmd.SendAudioStart("a", 0), (audio("a"), b"1234"), cmd.ClearPlayout(), cmd.SendAudioStart("b", 0))
    playout.apply(audio("b"), b"5678", ())
    assert taken(playout) == [("b", b"5678")]


def test_a_voice_speaks_the_part_that_is_playing() -> None:
    speech = TtsAudioRecord(1.0, 4, "context_1")
    playout = played(
        cmd.SendAudioStart("a", 0), (speech, b"1234"), cmd.SendAudioEnd("a", 0, 0), cmd.SendAudioStart("b", 0)
    )
    playout.apply(speech, b"5678", ())
    assert taken(playout) == [("a", b"1234"), ("b", b"5678")]


def test_the_end_of_a_part_lets_go_of_what_the_filter_holds() -> None:
    options = DeviceOptions(WIDE, WIDE)
    playing = (cmd.SendAudioStart("a", 0), (audio("a"), tone(100)))
    n_bytes = sum(len(samples) for _, samples in taken(played(*playing, options=options)))
    ended = sum(len(samples) for _, samples in taken(played(*playing, cmd.SendAudioEnd("a", 0, 100), options=options)))
    assert n_bytes < ended


def test_the_end_of_another_part_of_the_same_item_leaves_the_filter_alone() -> None:
    options = DeviceOptions(WIDE, WIDE)
    playing = (cmd.SendAudioStart("a", 0), cmd.SendAudioStart("a", 1), (audio("a"), tone(100)))
    assert taken(played(*playing, cmd.SendAudioEnd("a", 0, 0), options=options)) == taken(
        played(*playing, options=options)
    )
