import pytest

from relay.local_engine.nlu.text_normalization import (
    integer_to_words,
    name_to_words,
    parse_number,
    spoken_words,
    tokenize,
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Roll 2 dice!", "roll two dice"),
        ("  São Paulo's ", "sao paulo's"),
        ("12.5 miles", "twelve point five miles"),
        ("-40 celsius", "minus forty celsius"),
        ("10-20", "ten twenty"),
        ("1,234", "one thousand two hundred thirty four"),
        ("20230415", "two zero two three zero four one five"),
        ("m²", "m2"),
        ("d20", "d twenty"),
        ("…?!", ""),
    ],
)
def test_text_as_it_is_spoken(text: str, words: str):
    assert " ".join(spoken_words(text)) == words


def test_words_have_their_spans():
    text = "in  Kraków, 12"
    assert [text[word.start : word.end] for word in tokenize(text)] == ["in", "Kraków", "12"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("roll_dice", "roll dice"),
        ("getHTTPStatus2", "get httpstatus two"),
        ("navai-list.files", "navai list files"),
        ("", ""),
    ],
)
def test_names_as_words(name: str, words: str):
    assert " ".join(name_to_words(name)) == words


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("seven", 7),
        ("twenty one", 21),
        ("a hundred", 100),
        ("one hundred and five", 105),
        ("two thousand three hundred", 2300),
        ("minus four point two five", -4.25),
        ("two and a half", 2.5),
    ],
)
def test_numbers_are_read_back(text: str, value: float):
    words = text.split()
    assert next(iter(parse_number(words))) == (len(words), value)


def test_every_spoken_number_is_read_back():
    for value in [*range(1200), 9999, 10_000, 123_456, 999_999]:
        words = integer_to_words(value)
        assert (len(words), value) in list(parse_number(words))


@pytest.mark.parametrize("text", ["", "and", "hundred", "a", "point five", "minus"])
def test_text_without_a_number(text: str):
    assert list(parse_number(text.split())) == []
