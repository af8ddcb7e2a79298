from relay.local_engine.nlu.lexicon import english, guess


def test_listed_words_have_all_their_readings():
    assert english().readings("hello") == ("HH AH L OW", "HH EH L OW")
    assert english().readings("the") == ("DH AH", "DH IY")


def test_first_and_last_entries_are_found():
    assert english().readings("'bout") == ("B AW T",)
    assert english().readings("zywicki") == ("Z IH W IH K IY",)


def test_unlisted_words_are_guessed_from_their_letters():
    assert english().readings("blorptech") == ("B L AO R P T EH CH",)
    assert guess("zanike") == ("Z AE N IH K",)


def test_what_has_no_letters_to_read_has_no_reading():
    assert english().readings("møte") == ()
    assert english().readings("") == ()
