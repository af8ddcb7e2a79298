"""Devices that hear their own speaker: while an item plays, their microphone counts as silent."""

import pytest

from audio.formats import PCM16_16K, PCMA, PCMU, AudioFormat
from relay.session.common.model import DeviceOptions
from relay.session.device import events as ev
from tests.support.device_session_harness import DeviceSessionHarness, playout_cleared
from tests.support.media import InputAudio

SPEECH = b"\x12\x34" * 160


def half_duplex(fmt: AudioFormat = PCM16_16K) -> DeviceSessionHarness:
    harness = DeviceSessionHarness(options=DeviceOptions(fmt, fmt))
    harness.feed(ev.Hello(("duplex",), half_duplex=True))
    return harness.ready()


def heard(harness: DeviceSessionHarness) -> bytes:
    """What the model is given of the next piece of microphone audio."""
    [frame] = harness.feed(InputAudio(SPEECH))
    assert isinstance(frame, InputAudio)
    assert frame.n_bytes == len(SPEECH)
    return bytes(frame.raw)


@pytest.mark.parametrize(
    ("fmt", "silence"), [(PCM16_16K, b"\x00"), (PCMU, b"\xff"), (PCMA, b"\xd5")], ids=["pcm16", "pcmu", "pcma"]
)
def test_the_microphone_is_silence_while_an_item_plays_and_speech_again_after_it(
    fmt: AudioFormat, silence: bytes
) -> None:
    harness = half_duplex(fmt)
    assert heard(harness) == SPEECH
    harness.model_speaks()
    assert heard(harness) == SPEECH, "nothing has gone to the speaker yet"
    harness.feed(ev.FirstAudioSent("item_1"))
    assert heard(harness) == silence * len(SPEECH)
    harness.feed(ev.PlayoutFinished())
    assert heard(harness) == SPEECH


def test_a_button_that_interrupts_opens_the_microphone_at_once() -> None:
    harness = half_duplex()
    harness.model_speaks()
    harness.feed(ev.FirstAudioSent("item_1"), ev.Interrupt())
    assert heard(harness) == bytes(len(SPEECH))
    harness.feed(playout_cleared(("item_1", 1000, 400)))
    assert heard(harness) == SPEECH


def test_what_was_held_while_an_item_plays_is_silence_also_before_what_was_typed_meanwhile() -> None:
    harness = DeviceSessionHarness(options=DeviceOptions(half_duplex=True))
    harness.feed(ev.UpstreamOpened(), ev.SessionCreated())
    harness.model_speaks()
    harness.feed(ev.FirstAudioSent("item_1"), InputAudio(SPEECH), ev.UserText("hello"), InputAudio(SPEECH))
    forwarded = [bytes(command.raw) for command in harness.feed(ev.SessionUpdated()) if isinstance(command, InputAudio)]
    assert forwarded == [bytes(len(SPEECH))] * 2


def test_full_duplex_hears_everything() -> None:
    harness = DeviceSessionHarness().ready()
    harness.model_speaks()
    harness.feed(ev.FirstAudioSent("item_1"))
    assert heard(harness) == SPEECH


def test_ready_reports_the_duplex_mode() -> None:
    harness = half_duplex()
    assert harness.session.options.half_duplex
    harness = DeviceSessionHarness()
    harness.feed(ev.Hello(("duplex",), half_duplex=False)), harness.ready()
    assert not harness.session.options.half_duplex
