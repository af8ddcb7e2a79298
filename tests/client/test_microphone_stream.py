import pytest

from audio.formats import PCM16_24K, PCMU, AudioFormat
from audio.transcode import decode, encode
from relay.client import MicrophoneStream


class Clock:
    """Time that passes only while someone sleeps or sends."""

    def __init__(self) -> None:
        self.now = 100.0

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


class Enough(Exception):
    pass


async def speak(
    pcm: bytes, audio_format: AudioFormat, n_frames: int, send_s: dict[int, float]
) -> list[tuple[float, bytes]]:
    """The first frames with the time at which each was sent; `send_s` says how long sending some of them takes."""
    clock, sent = Clock(), list[tuple[float, bytes]]()

    async def send(frame: bytes) -> None:
        sent.append((clock.now, frame))
        clock.now += send_s.get(len(sent) - 1, 0)
        if len(sent) == n_frames:
            raise Enough

    with pytest.raises(Enough):
        await MicrophoneStream(pcm, audio_format, send, lambda: clock.now, clock.sleep).run()
    return sent


async def test_lateness_does_not_add_up() -> None:
    sent = await speak(b"", PCM16_24K, 8, {1: 0.05, 4: 0.001})
    assert [at - 100 for at, _ in sent] == pytest.approx([0, 0.02, 0.07, 0.07, 0.08, 0.1, 0.12, 0.14])


async def test_the_last_frame_is_filled_up_and_silence_follows() -> None:
    sent = await speak(b"ab" * 700, PCM16_24K, 4, {})
    assert [frame for _, frame in sent] == [b"ab" * 480, b"ab" * 220 + bytes(520), bytes(960), bytes(960)]
    assert MicrophoneStream(b"ab" * 700, PCM16_24K, send=lambda _: Clock().sleep(0)).duration_s == 0.04


async def test_silence_has_the_encodings_own_zero() -> None:
    assert (await speak(b"", PCMU, 1, {}))[0][1] == b"\xff" * 160


def test_what_is_encoded_decodes() -> None:
    assert decode(encode(bytes(8), PCMU), PCMU) == bytes(8)
    assert decode(b"abc", PCM16_24K) == b"ab"
