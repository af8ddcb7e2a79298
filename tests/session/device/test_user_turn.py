"""Devices that hear their own speaker: while an item plays, their microphone counts as silent."""

import pytest

from audio.formats import PCM16_16K, PCMA, PCMU, AudioFormat
from relay.session.common.model import DeviceOptions
from relay.session.device import events as ev
from tests.support.device_script import Script, dropped
from tests.support.media import InputAudio

SPEECH = b"\x12\x34" * 160


def half_duplex(fmt: AudioFormat = PCM16_16K) -> Script:
    script = Script(options=DeviceOptions(fmt, fmt))
    script.see(ev.Hello(("duplex",), half_duplex=True))
    return script.ready()


def heard(script: Script) -> bytes:
    """What the model is given of the next piece of microphone audio."""
    [frame] = script.see(InputAudio(SPEECH))
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
    script.speaks()
    assert heard(script) == SPEECH, "nothing has gone to the speaker yet"
    script.see(ev.AudioHanded("item_1"))
    assert heard(script) == silence * len(SPEECH)
    script.see(ev.PlayedOut())
    assert heard(script) == SPEECH


def test_a_button_that_interrupts_opens_the_microphone_at_once() -> None:
    script = half_duplex()
    script.speaks()
    script.see(ev.AudioHanded("item_1"), ev.Interrupt())
    assert heard(script) == bytes(len(SPEECH))
    script.see(dropped(("item_1", 1000, 400)))
    assert heard(script) == SPEECH


def test_what_was_held_while_an_item_plays_is_silence_also_before_what_was_typed_meanwhile() -> None:
    script = Script(options=DeviceOptions(half_duplex=True))
    script.see(ev.UpstreamOpened(), ev.SessionCreated())
    script.speaks()
    script.see(ev.AudioHanded("item_1"), InputAudio(SPEECH), ev.UserText("hello"), InputAudio(SPEECH))
    went_on = [bytes(one.raw) for one in script.see(ev.SessionUpdated()) if isinstance(one, InputAudio)]
    assert went_on == [bytes(len(SPEECH))] * 2


def test_full_duplex_hears_everything() -> None:
    script = Script().ready()
    script.speaks()
    script.see(ev.AudioHanded("item_1"))
    assert heard(script) == SPEECH


def test_ready_tells_which_it_is() -> None:
    script = half_duplex()
    assert script.session.options.half_duplex
    script = Script()
    script.see(ev.Hello(("duplex",), half_duplex=False)), script.ready()
    assert not script.session.options.half_duplex
