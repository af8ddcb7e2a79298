from hypothesis import given
from hypothesis import strategies as st

from relay.local_engine.nlu.english import STORY
from relay.local_engine.speech.tts_text import FIRST_CHUNK_CHARS, MAX_CHUNK_CHARS, split_for_synthesis


def test_the_first_chunk_is_short_and_chunks_end_at_pauses():
    sentence = "I am relay's local engine, a rehearsal partner that runs on this machine without a key or a network."
    chunks = list(split_for_synthesis([sentence, "A fish, said the voice, from the bay."]))
    assert chunks[0] == "I am relay's local"
    assert chunks[-2:] == ["A fish, said the voice,", "from the bay."]


def test_short_sentences_stay_whole():
    assert list(split_for_synthesis(["Hello!", "The time in Tokyo is noon."])) == [
        "Hello!",
        "The time in Tokyo is noon.",
    ]


@given(st.lists(st.lists(st.text("abc,;.", min_size=1, max_size=12), min_size=1).map(" ".join)))
def test_no_word_is_lost_or_cut(sentences: list[str]):
    assert " ".join(split_for_synthesis(sentences)).split() == " ".join(sentences).split()


def test_no_chunk_is_long():
    chunks = list(split_for_synthesis(STORY))
    assert len(chunks[0]) <= FIRST_CHUNK_CHARS + 12
    assert max(map(len, chunks)) <= MAX_CHUNK_CHARS + 24
