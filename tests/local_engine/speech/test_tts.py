import numpy as np
import pytest

from relay.errors import ConfigError
from relay.local_engine.realtime.session_config import VOICES
from relay.local_engine.speech import tts_espeak as espeak
from relay.local_engine.speech import tts_flite as flite
from relay.local_engine.speech.tts import SpeechSynthesizer, to_plain_ascii

SENTENCE = "Roll two dice and tell me the time in Paris."


def output(kind: str = "audio/pcm", voice: object = "marin", speed: float = 1.0) -> dict[str, object]:
    return {"format": {"type": kind}, "voice": voice, "speed": speed}


@pytest.fixture(scope="module")
def voice() -> SpeechSynthesizer:
    return SpeechSynthesizer()


def test_names_lead_to_voices_always_the_same(voice: SpeechSynthesizer):
    assert set(voice.voices) <= set(flite.VOICES)
    assert (voice.resolve_voice("marin"), voice.resolve_voice("cedar"), voice.resolve_voice("alloy")) == (
        "slt",
        "rms",
        "kal16",
    )
    assert voice.resolve_voice({"id": "voice_abc"}) == voice.resolve_voice("voice_abc")
    assert voice.resolve_voice("awb") == "awb"


@pytest.mark.parametrize(("kind", "bytes_per_ms"), [("audio/pcm", 48), ("audio/pcmu", 8), ("audio/pcma", 8)])
def test_formats_have_the_same_length(voice: SpeechSynthesizer, kind: str, bytes_per_ms: int):
    assert 2000 < len(voice.synthesize(SENTENCE, output(kind))) / bytes_per_ms < 3500


def test_speech_is_loud_enough(voice: SpeechSynthesizer):
    samples = np.frombuffer(voice.synthesize(SENTENCE, output()), dtype="<i2").astype(float)
    assert np.sqrt((samples**2).mean()) > 800


def test_the_same_text_has_the_same_samples(voice: SpeechSynthesizer):
    for name in ("marin", "cedar", "alloy", "ballad"):
        first = voice.synthesize(SENTENCE, output(voice=name))
        voice.synthesize("Something else.", output(voice=name))
        assert voice.synthesize(SENTENCE, output(voice=name)) == first


def test_no_two_of_openais_voices_are_the_same(voice: SpeechSynthesizer):
    made = {name: voice.synthesize("Good morning.", output(voice=name)) for name in VOICES}
    assert len(set(made.values())) == len(VOICES)
    lengths = [len(sound) for name, sound in made.items() if voice.resolve_voice(name) == "slt"]
    assert max(lengths) / min(lengths) < 1.1  # higher or lower, not faster or slower


def test_speed(voice: SpeechSynthesizer):
    fast, slow = (len(voice.synthesize(SENTENCE, output(speed=speed))) for speed in (1.5, 0.5))
    assert slow / fast == pytest.approx(3, rel=0.15)
    assert len(voice.synthesize(SENTENCE, output())) == pytest.approx(fast * 1.5, rel=0.1)


@pytest.mark.parametrize("sentence", ["", "…", "\x00\x07", "日本", "a" * 5000, "1" * 400, "$", "<b>'\"&%", "x " * 2000])
def test_any_text_can_be_spoken(voice: SpeechSynthesizer, sentence: str):
    assert len(voice.synthesize(sentence, output(voice="kal16"))) % 2 == 0


def test_what_a_voice_gets_is_plain():
    assert to_plain_ascii("Zürich – 5 €\n<script>\x00") == "Zurich 5 script"


def test_espeak_speaks_where_flite_is_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(flite, "available", list)
    second = SpeechSynthesizer()
    assert second.voices == list(espeak.VOICES)
    assert (second.resolve_voice("marin"), second.resolve_voice("cedar")) == ("espeak-f", "espeak-m")
    assert 1500 < len(second.synthesize(SENTENCE, output())) / 48 < 4000


def test_no_voice_names_the_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(flite, "available", list)
    monkeypatch.setattr(espeak, "available", list)
    with pytest.raises(ConfigError, match="sudo apt-get install libflite1"):
        SpeechSynthesizer()
