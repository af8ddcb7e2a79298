"""Devices that hear their own speaker: while an item plays, their microphone counts as silent."""

import pytest

from audio.formats import PCM16_16K, PCMA, PCMU, AudioFormat
from relay.session.common.model import DeviceOptions
from relay.session.device import events as ev
from tests.support.device_script import DeviceSessionHarness, playout_cleared
from tests.support.media import InputAudio

SPEECH = b"\x12\x34" * 160


def half_duplex(fmt: AudioFormat = PCM16_16K) -> DeviceSessionHarness:
    script = DeviceSessionHarness(options=DeviceOptions(fmt, fmt))
    script.feed(ev.Hello(("duplex",), half_duplex=True))
    return script.ready()


def heard(script: DeviceSessionHarness) -> bytes:
    """What the model is given of the next piece of microphone audio."""
    [frame] = script.feed(InputAudio(SPEECH))
    assert isinstance(frame, InputAudio)
    assert frame.n_bytes == len(SPEECH)
    return bytes(frame.raw)


@pytest.mark.parametrize(
    ("fmt", "silence"), [(PCM16_16K, b"\x00"), (PCMU, b"\xff"), (PCMA, b"\xd5")], ids=["pcm16", "pcmu", "pcma"]
)
def test_the_microphone_is_silence_while_an_item_plays_and_speech_again_after_it(
    fmt: AudioFormat, silence: bytes
) -> None:
    script = half_duplex(fmt)
    assert heard(script) == SPEECH
    script.model_speaks()
    assert heard(script) == SPEECH, "nothing has gone to the speaker yet"
    script.feed(ev.FirstAudioSent("item_1"))
    assert heard(script) == silence * len(SPEECH)
    script.feed(ev.PlayoutFinished())
    assert heard(script) == SPEECH


def test_a_button_that_interrupts_opens_the_microphone_at_once() -> None:
    script = half_duplex()
    script.model_speaks()
    script.feed(ev.FirstAudioSent("item_1"), ev.Interrupt())
    assert heard(script) == bytes(len(SPEECH))
    script.feed(playout_cleared(("item_1", 1000, 400)))
    assert heard(script) == SPEECH


def test_what_was_held_while_an_item_plays_is_silence_also_before_what_was_typed_meanwhile() -> None:
    script = DeviceSessionHarness(options=DeviceOptions(half_duplex=True))
    script.feed(ev.UpstreamOpened(), ev.SessionCreated())
    script.model_speaks()
    script.feed(ev.FirstAudioSent("item_1"), InputAudio(SPEECH), ev.UserText("hello"), InputAudio(SPEECH))
    went_on = [bytes(one.raw) for one in script.feed(ev.SessionUpdated()) if isinstance(one, InputAudio)]
    assert went_on == [bytes(len(SPEECH))] * 2


def test_full_duplex_hears_everything() -> None:
    script = DeviceSessionHarness().ready()
    script.model_speaks()
    script.feed(ev.FirstAudioSent("item_1"))
    assert heard(script) == SPEECH


def test_ready_tells_which_it_is() -> None:
    script = half_duplex()
    assert script.session.options.half_duplex
    script = DeviceSessionHarness()
    script.feed(ev.Hello(("duplex",), half_duplex=False)), script.ready()
    assert not script.session.options.half_duplex
