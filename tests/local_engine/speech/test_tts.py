import numpy as np
import pytest

from relay.errors import ConfigError
from relay.local_engine.realtime.session_config import VOICES
from relay.local_engine.speech import tts_espeak as espeak
from relay.local_engine.speech import tts_flite as flite
from relay.local_engine.speech.tts import SpeechSynthesizer
from relay.local_engine.speech.tts_text import to_plain_ascii

SENTENCE = "Roll two dice and tell me the time in Paris."


def output(kind: str = "audio/pcm", voice: object = "marin", speed: float = 1.0) -> dict[str, object]:
    return {"format": {"type": kind}, "voice": voice, "speed": speed}


@pytest.fixture(scope="module")
def synthesizer() -> SpeechSynthesizer:
    return SpeechSynthesizer()


def test_a_name_always_resolves_to_the_same_voice(synthesizer: SpeechSynthesizer):
    assert set(synthesizer.voices) <= set(flite.VOICES)
    assert (
        synthesizer.resolve_voice("marin"),
        synthesizer.resolve_voice("cedar"),
        synthesizer.resolve_voice("alloy"),
    ) == (
        "slt",
        "rms",
        "kal16",
    )
    assert synthesizer.resolve_voice({"id": "voice_abc"}) == synthesizer.resolve_voice("voice_abc")
    assert synthesizer.resolve_voice("awb") == "awb"


@pytest.mark.parametrize(("kind", "bytes_per_ms"), [("audio/pcm", 48), ("audio/pcmu", 8), ("audio/pcma", 8)])
def test_formats_have_the_same_length(synthesizer: SpeechSynthesizer, kind: str, bytes_per_ms: int):
    assert 2000 < len(synthesizer.synthesize(SENTENCE, output(kind))) / bytes_per_ms < 3500


def test_speech_is_loud_enough(synthesizer: SpeechSynthesizer):
    samples = np.frombuffer(synthesizer.synthesize(SENTENCE, output()), dtype="<i2").astype(float)
    assert np.sqrt((samples**2).mean()) > 800


def test_the_same_text_has_the_same_samples(synthesizer: SpeechSynthesizer):
    for name in ("marin", "cedar", "alloy", "ballad"):
        first = synthesizer.synthesize(SENTENCE, output(voice=name))
        synthesizer.synthesize("Something else.", output(voice=name))
        assert synthesizer.synthesize(SENTENCE, output(voice=name)) == first


def test_no_two_of_openais_voices_are_the_same(synthesizer: SpeechSynthesizer):
    audio_by_name = {name: synthesizer.synthesize("Good morning.", output(voice=name)) for name in VOICES}
    assert len(set(audio_by_name.values())) == len(VOICES)
    lengths = [len(audio) for name, audio in audio_by_name.items() if synthesizer.resolve_voice(name) == "slt"]
    assert max(lengths) / min(lengths) < 1.1  # higher or lower, not faster or slower


def test_speed(synthesizer: SpeechSynthesizer):
    fast, slow = (len(synthesizer.synthesize(SENTENCE, output(speed=speed))) for speed in (1.5, 0.5))
    assert slow / fast == pytest.approx(3, rel=0.15)
    assert len(synthesizer.synthesize(SENTENCE, output())) == pytest.approx(fast * 1.5, rel=0.1)


@pytest.mark.parametrize("sentence", ["", "…", "\x00\x07", "日本", "a" * 5000, "1" * 400, "$", "<b>'\"&%", "x " * 2000])
def test_any_text_can_be_spoken(synthesizer: SpeechSynthesizer, sentence: str):
    assert len(synthesizer.synthesize(sentence, output(voice="kal16"))) % 2 == 0


def test_text_is_reduced_to_plain_ascii():
    assert to_plain_ascii("Zürich – 5 €\n<script>\x00") == "Zurich 5 script"


def test_espeak_speaks_where_flite_is_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(flite, "available_voices", list)
    second = SpeechSynthesizer()
    assert second.voices == list(espeak.VOICES)
    assert (second.resolve_voice("marin"), second.resolve_voice("cedar")) == ("espeak-f", "espeak-m")
    assert 1500 < len(second.synthesize(SENTENCE, output())) / 48 < 4000


def test_no_voice_names_the_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(flite, "available_voices", list)
    monkeypatch.setattr(espeak, "available_voices", list)
    with pytest.raises(ConfigError, match="sudo apt-get install libflite1"):
        SpeechSynthesizer()
