"""The accuracy of recognition. The voices are synthetic: the figures do not apply to human speakers."""

import numpy as np
import pytest

from relay.local_engine.nlu.grammar import Grammar
from relay.local_engine.speech.recognizer import MAX_UTTERANCE_MS, Recognizer, RecognizerPool
from tests.local_engine.accuracy import KNOWN, UNKNOWN, VOICES, measure, recognize, shipped_grammar, speech, understood

SOME = KNOWN[::2]


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer(shipped_grammar())


@pytest.mark.parametrize("voice", ["slt", "rms", "kal16"])
def test_sentences_of_the_shipped_tools_are_understood(recognizer: Recognizer, voice: str):
    assert sum(understood(recognizer, voice, SOME)) >= len(SOME) - 1


def test_in_noise_most_are_still_understood(recognizer: Recognizer):
    assert sum(understood(recognizer, "rms", SOME, noise_db=25)) >= len(SOME) - 2


def test_most_other_sentences_are_rejected(recognizer: Recognizer):
    refused = [recognize(recognizer, speech(sentence, "slt")).text is None for sentence in UNKNOWN[:10]]
    assert sum(refused) >= 8


@pytest.mark.long
@pytest.mark.parametrize(("noise_db", "least"), [(None, 0.95), (20.0, 0.85)])
def test_the_table(recognizer: Recognizer, noise_db: float | None, least: float):
    rows = [measure(recognizer, voice, noise_db) for voice in VOICES]
    assert sum(row.accepted for row in rows) / len(rows) >= least
    assert sum(row.rejected for row in rows) / len(rows) >= 0.85


def test_silence_and_noise_are_nothing(recognizer: Recognizer):
    noise = np.random.default_rng(2).normal(0, 2000, 32_000).astype("<i2").tobytes()
    assert recognize(recognizer, bytes(32_000)).text is None
    assert recognize(recognizer, noise).text is None
    assert recognize(recognizer, b"").text is None


def test_half_a_sentence_is_rejected(recognizer: Recognizer):
    whole = speech("convert five miles to kilometers", "slt")
    assert recognize(recognizer, whole[: len(whole) // 3]).text is None


def test_endless_speech_is_cut_at_the_maximum(recognizer: Recognizer):
    recognizer.start()
    for _ in range(40):
        recognizer.feed(bytes(32_000))
    assert len(recognizer._audio) == MAX_UTTERANCE_MS * 32
    assert list(recognizer.finish()) == []


def test_idle_recognizers_are_shared_by_grammar():
    grammars = [Grammar([]), Grammar([])]
    pool = RecognizerPool(max_idle=1)
    first = pool.acquire(grammars[0])
    assert pool.acquire(grammars[0]) is not first
    pool.release(first)
    other = pool.acquire(grammars[1])
    assert pool.acquire(grammars[0]) is first
    pool.release(first)
    pool.release(other)
    assert pool.acquire(grammars[0]) is not first
