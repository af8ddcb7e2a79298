"""What was played, by acknowledgement or by estimate, and where a barge-in cuts (D1, D2)."""

from audio.formats import PCM16_24K
from relay.session.common.media_ledger import MediaLedger
from relay.session.common.model import SentAudio
from relay.session.device.playback import ACK_FRESH_MS, InterruptedPart, PlaybackLedger
from tests.support.device_session_harness import MS_BYTES


def playback_with(*clips: tuple[str, int]) -> PlaybackLedger:
    ledger = MediaLedger()
    playback = PlaybackLedger(PCM16_24K, ledger)
    for item_id, ms in clips:
        playback.start(item_id, 0, "resp_1")
        ledger.add_output((item_id, 0), ms * MS_BYTES, 0.0)
    return playback


def handed(item_id: str, handed_ms: int, estimated_ms: int) -> SentAudio:
    return SentAudio(item_id, 0, handed_ms, estimated_ms)


def test_length_is_counted_as_the_upstream_sent_it() -> None:
    playback = playback_with(("item_1", 250))
    assert playback.complete("item_1", 0) == 250
    assert playback.complete("item_1", 0) is None, "once"


def test_a_truncation_is_exactly_at_the_acknowledgement() -> None:
    playback = playback_with(("item_1", 3000))
    assert playback.acknowledge("item_1", 1234, now=10.0) == "ok"
    assert playback.interrupt((handed("item_1", 2000, 1900),), now=10.0) == [
        InterruptedPart("item_1", 0, 1234, 3000, estimated=False, action="truncate")
    ]


def test_an_older_acknowledgement_is_extrapolated_for_a_slow_clients_interval_and_no_longer() -> None:
    playback = playback_with(("item_1", 9000))
    playback.acknowledge("item_1", 1000, now=10.0)
    [cut] = playback.interrupt((handed("item_1", 9000, 0),), now=10.3)
    assert cut.played_ms == 1000 + 300 - ACK_FRESH_MS
    playback = playback_with(("item_1", 9000))
    playback.acknowledge("item_1", 1000, now=10.0)
    [cut] = playback.interrupt((handed("item_1", 9000, 0),), now=60.0)
    assert cut.played_ms == 1400


def test_acknowledgements_are_monotone_and_never_pass_what_was_received() -> None:
    playback = playback_with(("item_1", 500))
    playback.acknowledge("item_1", 400, now=1.0)
    playback.acknowledge("item_1", 100, now=1.0)
    playback.acknowledge("item_1", 99_999, now=1.0)
    [cut] = playback.interrupt((handed("item_1", 500, 0),), now=1.0)
    assert cut.played_ms == 500


def test_a_truncation_never_passes_what_was_sent() -> None:
    playback = playback_with(("item_1", 3000))
    playback.acknowledge("item_1", 2500, now=1.0)
    [cut] = playback.interrupt((handed("item_1", 800, 0),), now=1.0)
    assert cut.played_ms == 800


def test_without_acknowledgements_the_estimate_is_used_and_said() -> None:
    playback = playback_with(("item_1", 3000))
    [cut] = playback.interrupt((handed("item_1", 1500, 700),), now=1.0)
    assert (cut.played_ms, cut.estimated, cut.action) == (700, True, "truncate")


def test_what_was_never_heard_is_deleted() -> None:
    playback = playback_with(("item_1", 1000), ("item_2", 1000))
    first, second = playback.interrupt((handed("item_1", 1000, 400), handed("item_2", 0, 0)), now=1.0)
    assert (first.action, second.action) == ("truncate", "delete")


def test_what_was_heard_to_its_end_is_left_alone() -> None:
    playback = playback_with(("item_1", 1000), ("item_2", 1000))
    playback.complete("item_1", 0)
    first, second = playback.interrupt((handed("item_2", 1000, 10),), now=1.0)
    assert (first.action, second.action) == ("keep", "truncate")


def test_an_item_acknowledged_to_its_end_is_forgotten() -> None:
    playback = playback_with(("item_1", 1000))
    playback.complete("item_1", 0)
    playback.acknowledge("item_1", 1000, now=1.0)
    assert playback.is_idle


def test_an_acknowledgement_ends_what_came_before() -> None:
    playback = playback_with(("item_1", 1000), ("item_2", 1000))
    playback.acknowledge("item_2", 10, now=1.0)
    assert [cut.item_id for cut in playback.interrupt((handed("item_2", 500, 0),), now=1.0)] == ["item_2"]


def test_late_and_unknown_items_are_distinguished() -> None:
    playback = playback_with(("item_1", 1000))
    playback.interrupt((), now=1.0)
    assert playback.acknowledge("item_1", 10, now=2.0) == "late"
    assert playback.acknowledge("item_x", 10, now=2.0) == "unknown"


def test_g711_is_counted_by_its_own_rate() -> None:
    from audio.formats import AudioFormat

    ledger = MediaLedger()
    playback = PlaybackLedger(AudioFormat("pcmu", 8000), ledger)
    playback.start("item_1", 0, "resp_1")
    ledger.add_output(("item_1", 0), 8000, 0.0)
    assert playback.complete("item_1", 0) == 1000
