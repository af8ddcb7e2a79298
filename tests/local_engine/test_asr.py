"""How well spoken sentences are told apart. The speakers are synthetic; of people's voices this says nothing."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from relay.local_engine.asr import LONGEST_MS, Heard, Recogniser, RecogniserPool
from relay.local_engine.grammar import Grammar
from relay.local_engine.speech import flite
from relay.toolkit.discovery import load_folder

SHIPPED = Path(__file__).parents[2] / "tools"
KNOWN = [
    "what time is it in tokyo",
    "how late is it in berlin",
    "what is the time in los angeles",
    "roll the dice",
    "roll six dice with twenty sides",
    "convert five miles to kilometers",
    "how many feet are three meters",
    "what is twenty celsius in fahrenheit",
    "convert two point five gallons to liters",
    "roll two dice and tell me the time in paris",
    "what can you do",
    "tell me a long story",
    "thank you",
    "stop",
]
UNKNOWN = [
    "where is my phone",
    "play some music by the beatles",
    "the quick brown fox jumps over the lazy dog",
    "set an alarm for seven",
    "turn off the lights in the kitchen",
    "send an email to john",
    "i think this does not work",
    "can i have a glass of water",
    "open the garage door",
    "call my mother",
]


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    tools = load_folder(SHIPPED).tools
    return Recogniser(Grammar([tool.definition(with_examples=True) for tool in tools]))


def said(sentence: str, voice: str, noise_db: float | None = None) -> bytes:
    """A sentence between silences, 16 kHz; with white noise so many dB under the voice."""
    pcm, _ = flite.synthesise(sentence, voice, 1.0)
    samples = np.concatenate([np.zeros(3200), np.frombuffer(pcm, dtype="<i2").astype(float), np.zeros(8000)])
    if noise_db is not None:
        level = np.sqrt((samples[3200:-8000] ** 2).mean()) / 10 ** (noise_db / 20)
        samples += np.random.default_rng(1).normal(0, level, len(samples))
    return samples.clip(-32768, 32767).astype("<i2").tobytes()


def heard(recogniser: Recogniser, pcm: bytes, sound: str | None = None) -> Heard:
    recogniser.start(sound)
    for start in range(0, len(pcm), 1024):
        recogniser.feed(pcm[start : start + 1024])
    work = recogniser.finish()
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: Heard = end.value
            return result


def session(recogniser: Recogniser, voice: str, sentences: list[str], noise_db: float | None = None) -> Iterator[bool]:
    """Whether each sentence was understood as meant, all over one microphone."""
    sound = None
    for sentence in sentences:
        result = heard(recogniser, said(sentence, voice, noise_db), sound)
        sound = recogniser.sound
        meant = recogniser.grammar.parse(sentence, strict=True)
        yield result.text is not None and recogniser.grammar.parse(result.text, strict=True) == meant


@pytest.mark.parametrize("voice", ["slt", "rms", "kal16"])
def test_sentences_of_the_shipped_tools_are_understood(recogniser: Recogniser, voice: str):
    assert sum(session(recogniser, voice, KNOWN)) >= len(KNOWN) - 1


def test_in_noise_most_are_still_understood(recogniser: Recogniser):
    assert sum(session(recogniser, "rms", KNOWN, noise_db=25)) >= len(KNOWN) - 3


def test_most_other_sentences_are_refused(recogniser: Recogniser):
    refused = [heard(recogniser, said(sentence, "slt")).text is None for sentence in UNKNOWN]
    assert sum(refused) >= len(UNKNOWN) - 2


def test_silence_and_noise_are_nothing(recogniser: Recogniser):
    noise = np.random.default_rng(2).normal(0, 2000, 32_000).astype("<i2").tobytes()
    assert heard(recogniser, bytes(32_000)).text is None
    assert heard(recogniser, noise).text is None
    assert heard(recogniser, b"").text is None


def test_half_a_sentence_is_refused(recogniser: Recogniser):
    whole = said("convert five miles to kilometers", "slt")
    assert heard(recogniser, whole[: len(whole) // 3]).text is None


def test_speech_without_end_is_listened_to_for_a_while_only(recogniser: Recogniser):
    recogniser.start()
    for _ in range(40):
        recogniser.feed(bytes(32_000))
    assert len(recogniser._audio) == LONGEST_MS * 32
    assert list(recogniser.finish()) == []


def test_idle_recognisers_are_shared_by_grammar():
    grammars = [Grammar([]), Grammar([])]
    pool = RecogniserPool(most_idle=1)
    first = pool.take(grammars[0])
    assert pool.take(grammars[0]) is not first
    pool.give_back(first)
    other = pool.take(grammars[1])
    assert pool.take(grammars[0]) is first
    pool.give_back(first)
    pool.give_back(other)
    assert pool.take(grammars[0]) is not first
