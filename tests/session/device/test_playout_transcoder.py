"""Audio towards a device: converted part by part, untouched where the formats agree."""

import pytest

from audio.formats import PCM16_8K, PCM16_16K, PCM16_24K, PCM16_48K, PCMA, PCMU, AudioFormat
from relay.session.common.model import DeviceOptions
from relay.session.device.playout_transcoder import PlayoutTranscoder


@pytest.mark.parametrize("fmt", [PCM16_8K, PCM16_16K, PCM16_24K, PCM16_48K, PCMU, PCMA], ids=str)
def test_a_second_of_the_upstream_is_a_second_for_the_client(fmt: AudioFormat) -> None:
    options = DeviceOptions(output=fmt)
    transcoder = PlayoutTranscoder(options)
    heard_bytes = sum(len(transcoder.convert(bytes(20 * options.upstream_output.bytes_per_ms))) for _ in range(50))
    heard_ms = (heard_bytes + len(transcoder.flush_part())) / fmt.bytes_per_ms
    assert abs(heard_ms - 1000) <= 2


@pytest.mark.parametrize("fmt", [PCM16_24K, PCMU, PCMA], ids=str)
def test_formats_that_agree_are_not_copied(fmt: AudioFormat) -> None:
    transcoder = PlayoutTranscoder(DeviceOptions(fmt, fmt))
    chunk = bytes(range(200))
    assert transcoder.convert(chunk) is chunk
    assert transcoder.flush_part() == b""


def test_mixed_formats_are_transcoded_by_direction() -> None:
    options = DeviceOptions(PCMU, PCM16_16K)
    transcoder = PlayoutTranscoder(options)
    assert (options.upstream_input, options.upstream_output) == (PCMU, PCM16_24K)
    assert len(transcoder.convert(bytes(480 * 2)) + transcoder.flush_part()) == pytest.approx(320 * 2, abs=80)


def test_nothing_of_a_part_that_was_truncated_or_ended_sounds_in_the_next() -> None:
    loud, quiet = b"\xff\x7f" * 480, bytes(960)
    fresh = PlayoutTranscoder(DeviceOptions()).convert(quiet)
    cut = PlayoutTranscoder(DeviceOptions())
    cut.convert(loud)
    cut.discard_part()
    assert cut.convert(quiet) == fresh
    ended = PlayoutTranscoder(DeviceOptions())
    ended.convert(loud)
    ended.flush_part()
    assert ended.convert(quiet) == fresh
