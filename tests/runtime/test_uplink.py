"""A device's uplink alone: whole samples, formats, short messages, and options that change in mid-stream."""

import asyncio
import base64
import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio.formats import PCM16_8K, PCM16_16K, PCM16_24K, PCM16_48K, PCMA, PCMU, AudioFormat
from relay.protocols.openai.audio_events import APPEND_TEMPLATE
from relay.runtime.uplink import DeviceUplink
from relay.session.common.media_ledger import MediaLedger
from relay.session.common.model import DeviceOptions
from relay.session.common.read_allowance import device_allowance, message_allowance
from relay.session.device import commands as cmd
from relay.testing import FakeClock
from relay.transport.read_limiter import ReadLimiter
from relay.transport.upstream import UpstreamConnection
from relay.transport.websocket import WebSocketConnection


class UplinkHarness:
    """An uplink with an open gate, and what it sent."""

    def __init__(self, input_: AudioFormat = PCM16_24K, output: AudioFormat = PCM16_24K) -> None:
        self.appends: list[bytes] = []
        self.ledger = MediaLedger()
        clock, upstream, client = FakeClock(), UpstreamConnection(), WebSocketConnection(1 << 20)
        upstream.send_text = self._append
        throttle = ReadLimiter(
            client, *device_allowance(input_, clock()), message_allowance(clock()), lambda event: None, clock
        )
        options = DeviceOptions(input_, output)
        self.uplink = DeviceUplink(
            self.ledger, upstream, throttle, clock, None, options, APPEND_TEMPLATE, lambda event: None
        )
        self.uplink.execute(cmd.SetInputGate("open"))

    def _append(self, message: object) -> None:
        self.appends.append(base64.b64decode(json.loads(bytes(message))["audio"]))  # type: ignore[call-overload]

    def send(self, *messages: bytes) -> bytes:
        """What the upstream is sent for these messages."""
        self.appends.clear()
        for message in messages:
            self.uplink.receive(message)
        return b"".join(self.appends)


async def test_an_odd_byte_waits_for_the_other_half_of_its_sample() -> None:
    harness = UplinkHarness()
    assert harness.send(bytes(961)) == bytes(960)
    assert harness.send(b"\x02" * 961) == b"\x00" + b"\x02" * 961
    assert harness.ledger.input_bytes == 961 + 961


async def test_g711_has_no_halves() -> None:
    assert UplinkHarness(PCMU).send(b"\x01" * 161) == b"\x01" * 161


@given(pcm=st.binary(max_size=4000), cuts=st.lists(st.integers(0, 4000), max_size=6))
@settings(max_examples=100, deadline=None)
def test_any_chunking_of_the_microphone_gives_the_same_whole_samples(pcm: bytes, cuts: list[int]) -> None:
    async def play() -> UplinkHarness:
        harness = UplinkHarness()
        edges = [0, *sorted(min(cut, len(pcm)) for cut in cuts), len(pcm)]
        for start, end in pairwise(edges):
            harness.uplink.receive(pcm[start:end])
        harness.uplink.flush()
        return harness

    harness = asyncio.run(play())
    assert b"".join(harness.appends) == pcm[: len(pcm) // 2 * 2]
    assert all(len(samples) % 2 == 0 for samples in harness.appends)


@pytest.mark.parametrize("fmt", [PCM16_8K, PCM16_16K, PCM16_24K, PCM16_48K, PCMU, PCMA], ids=str)
async def test_a_second_of_the_microphone_is_a_second_for_the_upstream(fmt: AudioFormat) -> None:
    sent_bytes = len(UplinkHarness(fmt).send(*[bytes(20 * fmt.bytes_per_ms)] * 50))
    sent_ms = sent_bytes / DeviceOptions(fmt, fmt).upstream_input.bytes_per_ms
    assert 1000 - 5 <= sent_ms <= 1000


@pytest.mark.parametrize("fmt", [PCM16_24K, PCMU, PCMA], ids=str)
async def test_a_format_that_the_upstream_takes_is_not_converted(fmt: AudioFormat) -> None:
    audio = bytes(range(200)) * 5
    assert UplinkHarness(fmt, PCM16_16K).send(audio) == audio


@pytest.mark.parametrize("fmt", [PCM16_16K, PCM16_48K, PCMU], ids=str)
async def test_short_frames_are_gathered_to_ten_ms(fmt: AudioFormat) -> None:
    harness, ten_ms = UplinkHarness(fmt), 10 * fmt.bytes_per_ms
    harness.send(*[b"\x07"] * (ten_ms - 1))
    assert harness.ledger.input_bytes == 0
    harness.send(b"\x07")
    assert harness.ledger.input_bytes == ten_ms


async def test_options_that_leave_a_format_as_it_is_leave_its_audio_as_it_is() -> None:
    audio = bytes(range(256)) * 20
    plain, changed = UplinkHarness(PCM16_16K), UplinkHarness(PCM16_16K)
    expected = plain.send(audio[:9], audio[9:2000], audio[2000:4000])
    sent_audio = changed.send(audio[:9])
    changed.uplink.apply_options(DeviceOptions(PCM16_16K, PCM16_48K))
    sent_audio += changed.send(audio[9:2000])
    changed.uplink.apply_options(DeviceOptions(PCM16_16K, PCM16_24K, half_duplex=True))
    assert sent_audio + changed.send(audio[2000:4000]) == expected


async def test_new_options_start_afresh() -> None:
    harness = UplinkHarness(PCM16_16K)
    harness.send(b"\x01")
    harness.uplink.apply_options(DeviceOptions(PCM16_24K, PCM16_24K))
    assert harness.send(b"\x02\x03" * 480) == b"\x02\x03" * 480
