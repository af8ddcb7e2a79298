"""How well spoken sentences are told apart. The speakers are synthetic; of people's voices this says nothing."""

import numpy as np
import pytest

from relay.local_engine.nlu.grammar import Grammar
from relay.local_engine.speech.recognizer import MAX_UTTERANCE_MS, Recognizer, RecognizerPool
from tests.local_engine.accuracy import KNOWN, UNKNOWN, VOICES, heard, measure, said, shipped_grammar, understood

SOME = KNOWN[::2]


@pytest.fixture(scope="module")
def recogniser() -> Recognizer:
    return Recognizer(shipped_grammar())


@pytest.mark.parametrize("voice", ["slt", "rms", "kal16"])
def test_sentences_of_the_shipped_tools_are_understood(recogniser: Recognizer, voice: str):
    assert sum(understood(recogniser, voice, SOME)) >= len(SOME) - 1


def test_in_noise_most_are_still_understood(recogniser: Recognizer):
    assert sum(understood(recogniser, "rms", SOME, noise_db=25)) >= len(SOME) - 2


def test_most_other_sentences_are_refused(recogniser: Recognizer):
    refused = [heard(recogniser, said(sentence, "slt")).text is None for sentence in UNKNOWN[:10]]
    assert sum(refused) >= 8


@pytest.mark.long
@pytest.mark.parametrize(("noise_db", "least"), [(None, 0.95), (20.0, 0.85)])
def test_the_table(recogniser: Recognizer, noise_db: float | None, least: float):
    rows = [measure(recogniser, voice, noise_db) for voice in VOICES]
    assert sum(row.kept for row in rows) / len(rows) >= least
    assert sum(row.refused for row in rows) / len(rows) >= 0.85


def test_silence_and_noise_are_nothing(recogniser: Recognizer):
    noise = np.random.default_rng(2).normal(0, 2000, 32_000).astype("<i2").tobytes()
    assert heard(recogniser, bytes(32_000)).text is None
    assert heard(recogniser, noise).text is None
    assert heard(recogniser, b"").text is None


def test_half_a_sentence_is_refused(recogniser: Recognizer):
    whole = said("convert five miles to kilometers", "slt")
    assert heard(recogniser, whole[: len(whole) // 3]).text is None


def test_speech_without_end_is_listened_to_for_a_while_only(recogniser: Recognizer):
    recogniser.start()
    for _ in range(40):
        recogniser.feed(bytes(32_000))
    assert len(recogniser._audio) == MAX_UTTERANCE_MS * 32
    assert list(recogniser.finish()) == []


def test_idle_recognisers_are_shared_by_grammar():
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
