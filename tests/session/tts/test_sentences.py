import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.session.tts.sentences import MAX_SENTENCE_CHARS, SentenceSplitter
from tests.support.doubling import assert_linear
from tests.support.plain_sentences import ReferenceSplitter


def split(text: str, step: int | None = None) -> list[str]:
    splitter = SentenceSplitter()
    found = []
    for start in range(0, len(text), step or max(len(text), 1)):
        found += splitter.feed(text[start : start + (step or len(text))])
    return [sentence.strip() for sentence in [*found, splitter.flush()] if sentence.strip()]


@pytest.mark.parametrize(
    "sentences",
    [
        ["Hello there.", "How are you?", "Fine!"],
        ["Dr. Smith met Mrs. Jones at 3.30 p.m. on Main St. in Boston.", "They talked."],
        ["The meeting is at 10 a.m.", "We begin on time."],
        ["It costs $3.50, i.e. nothing.", "Pi is 3.14159."],
        ["See https://example.com/a.b?x=1&y=2 for more.", "Then write to me@example.org."],
        ["J. R. R. Tolkien wrote it.", "The U.S. Army did not."],
        ['"Why?" he asked.', '"Because!"', "She left."],
        ["Wait...", "What was that?!", "Oh."],
        ["Am 3. Mai kommt z. B. Herr Dr. Maier.", "Das passt usw.", "Gut."],
        ["I rolled 5 and 1.", "That makes 6."],
        ["1. First we eat.", "2. Then we sleep."],
        ["Mme. Curie arrive à dix heures.", "Elle parle."],
        ["¿Qué hora es?", "¡Son las tres!", "El Sr. Gómez y la Sra. Ruiz llegan."],
        ["今日は晴れです。", "「本当？」", "はい！"],
        ["你好。", "今天天气很好！", "是吗？"],
        ["ما هذا؟", "هذا كتاب."],
        ["यह क्या है?", "यह किताब है।", "ठीक है।"],
        ["So do I.", "And you?"],
        ["A list:", "one", "two"],
    ],
)
def test_sentences_are_found_however_the_text_comes(sentences: list[str]) -> None:
    wide = sentences[0][-1] in "。！？"
    text = ("" if wide else "\n" if sentences[0].endswith(":") else " ").join(sentences)
    assert split(text) == sentences
    assert split(text, 1) == sentences
    assert split(text, 7) == sentences


def test_a_sentence_leaves_with_the_first_letter_of_the_next() -> None:
    splitter = SentenceSplitter()
    assert splitter.feed("Once upon a time.") == []
    assert splitter.feed(" ") == []
    assert splitter.feed("T") == ["Once upon a time. "]


def test_a_line_break_ends_a_sentence_at_once() -> None:
    assert SentenceSplitter().feed("Apples\n") == ["Apples\n"]


def test_what_has_no_end_is_cut_at_a_clause_a_word_or_anywhere() -> None:
    clause = "word " * 40 + "comma, " + "word " * 40
    assert split(clause)[0].endswith("comma,")
    assert [len(piece) for piece in split("x" * 700)] == [300, 300, 100]
    assert all(piece.endswith("word") for piece in split("word " * 200))


@given(st.text(alphabet="ab .!?\n。「」1I,", max_size=900), st.integers(1, 50))
def test_nothing_is_lost_and_nothing_is_too_long(text: str, step: int) -> None:
    splitter = SentenceSplitter()
    pieces = [piece for start in range(0, len(text), step) for piece in splitter.feed(text[start : start + step])]
    rest = splitter.flush()
    assert "".join(pieces) + rest == text
    assert all(0 < len(piece) <= MAX_SENTENCE_CHARS for piece in pieces)
    assert len(rest) <= MAX_SENTENCE_CHARS


PARTS = st.sampled_from(
    [
        *'ab .!?\n。」"1I,\t…',
        "Dr. ",
        "12. ",
        "12. Mai ",
        "3. ",
        "usw. ",
        "J. R. ",
        "...",
        "   ",
        " \n ",
        "x" * 40,
        "\u2028",
    ]
)


@given(st.lists(st.tuples(PARTS, st.integers(1, 90)), max_size=12), st.integers(1, 700))
def test_it_agrees_with_the_reference_splitter(parts: list[tuple[str, int]], step: int) -> None:
    text = "".join(part * times for part, times in parts)
    splitter, plain = SentenceSplitter(), ReferenceSplitter()
    for start in range(0, len(text), step):
        piece = text[start : start + step]
        assert splitter.feed(piece) == plain.feed(piece)
    assert splitter.flush() == plain.flush()


@given(st.text(alphabet='ab .!?\n。「」1I,"', max_size=900), st.integers(1, 50))
def test_it_agrees_with_the_reference_splitter_on_any_text(text: str, step: int) -> None:
    splitter, plain = SentenceSplitter(), ReferenceSplitter()
    for start in range(0, len(text), step):
        piece = text[start : start + step]
        assert splitter.feed(piece) == plain.feed(piece)
    assert splitter.flush() == plain.flush()


HOSTILE = [".", "!", '"', " ", "a", '."', "1. ", ". ", "a.\n", "Dr. ", "。", "\n", "\t x", "?!a", "a. a"]


@pytest.mark.parametrize("unit", HOSTILE)
@pytest.mark.parametrize("step", [1, 65_536])
def test_the_work_grows_with_the_text_alone(unit: str, step: int) -> None:
    def read(n_chars: int) -> None:
        splitter, text = SentenceSplitter(), (unit * n_chars)[:n_chars]
        for start in range(0, n_chars, step):
            splitter.feed(text[start : start + step])
        splitter.flush()

    assert_linear(read, 4_000 if step == 1 else 16_000, max_ms=750)
