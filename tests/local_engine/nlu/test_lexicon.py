from relay.local_engine.nlu.lexicon import english_lexicon, letter_to_sound


def test_listed_words_have_all_their_pronunciations():
    assert english_lexicon().pronunciations("hello") == ("HH AH L OW", "HH EH L OW")
    assert english_lexicon().pronunciations("the") == ("DH AH", "DH IY")


def test_first_and_last_entries_are_found():
    assert english_lexicon().pronunciations("'bout") == ("B AW T",)
    assert english_lexicon().pronunciations("zywicki") == ("Z IH W IH K IY",)


def test_unlisted_words_are_pronounced_by_their_letters():
    assert english_lexicon().pronunciations("blorptech") == ("B L AO R P T EH CH",)
    assert letter_to_sound("zanike") == ("Z AE N IH K",)


def test_other_characters_have_no_pronunciation():
    assert english_lexicon().pronunciations("møte") == ()
    assert english_lexicon().pronunciations("") == ()
