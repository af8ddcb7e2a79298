"""The relay's own secrets are found in whatever spelling JSON has for them, and nothing else is touched."""

import base64
import json
import os
from urllib.parse import quote

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.session.common.known_secrets import BLOCK_BYTES, MAX_ROTATING, NO_SECRETS, KnownSecrets
from relay.session.common.redact import MASK
from tests.support.doubling import assert_linear

KEY = "sk-a/B+c=d_0123456789"
ODD = 'pass"word\\ü\n12345'


def test_a_text_loses_every_secret() -> None:
    known = KnownSecrets([KEY, ODD])
    assert known.redact(f"a {KEY} b {KEY}{ODD}") == f"a {MASK} b {MASK}{MASK}"
    assert known.redact(f"GET /?key={quote(KEY, safe='')}") == f"GET /?key={MASK}"
    assert known.redact(json.dumps({"x": ODD})) == json.dumps({"x": MASK}, ensure_ascii=False)


def test_a_text_without_one_is_the_same_object() -> None:
    known, text, raw = KnownSecrets([KEY]), "nothing here", b'{"a":"b"}'
    assert known.redact(text) is text
    assert known.redact_json(raw) is raw
    assert NO_SECRETS.redact_json(raw) is raw


@pytest.mark.parametrize("value", ["", "short77", "password", "response.done", "12345678", "123456789012345", None])
def test_what_could_be_an_ordinary_word_or_number_is_not_a_secret(value: str | None) -> None:
    assert not KnownSecrets([value])


@pytest.mark.parametrize("value", ["Passw0rd", "correcthorsebatterystaple", "1234567890123456", "pass-word"])
def test_what_is_long_or_odd_enough_is_one(value: str) -> None:
    assert KnownSecrets([value]).redact(value) == MASK


def test_a_secret_within_another_leaves_nothing_of_it() -> None:
    known = KnownSecrets(["Abcd-1234", "xx-Abcd-1234-yy"])
    assert known.redact("xx-Abcd-1234-yy Abcd-1234") == f"{MASK} {MASK}"


def spelled(text: str, how: list[int]) -> str:
    """`text` in a JSON string, each character in one of its spellings."""
    out = []
    for char, choice in zip(text, how, strict=True):
        usual = json.dumps(char, ensure_ascii=False)[1:-1]
        code = f"\\u{ord(char):04x}"
        out.append([usual, code, code.upper().replace("\\U", "\\u"), "\\/" if char == "/" else usual][choice])
    return "".join(out)


@given(st.sampled_from([KEY, ODD]), st.data())
@settings(max_examples=100, deadline=None)
def test_json_can_spell_a_secret_in_no_way_that_is_missed(secret: str, data: st.DataObject) -> None:
    how = data.draw(st.lists(st.integers(0, 3), min_size=len(secret), max_size=len(secret)))
    raw = f'{{"type":"error","error":{{"message":"x {spelled(secret, how)} y","n":[1.5,null]}}}}'.encode()
    redacted = orjson.loads(KnownSecrets([KEY, ODD]).redact_json(raw))
    assert redacted == {"type": "error", "error": {"message": f"x {MASK} y", "n": [1.5, None]}}


@pytest.mark.parametrize("raw", [b"not json " + KEY.encode(), b'{"a":"\\u0041 ' + KEY.encode(), b"[" * 2000 + b"\\u"])
def test_invalid_json_is_searched_as_it_is(raw: bytes) -> None:
    assert KEY.encode() not in KnownSecrets([KEY]).redact_json(raw)


@pytest.mark.parametrize("offset", [0, 1, 7, BLOCK_BYTES - 3, BLOCK_BYTES, 2 * BLOCK_BYTES - 11])
def test_a_secret_beside_audio_is_found_wherever_blocks_end(offset: int) -> None:
    sound = base64.b64encode(os.urandom(3 * BLOCK_BYTES))
    raw = b'{"p":"' + b"x " * (offset // 2) + b'","audio":"' + sound + b'","message":"' + KEY.encode() + b'"}'
    cleaned = KnownSecrets([KEY]).redact_json(raw)
    assert KEY.encode() not in cleaned
    assert orjson.loads(cleaned)["audio"].encode() == sound


def test_half_a_surrogate_pair_hides_no_secret() -> None:
    raw = b'{"heard":"\\ud800","message":"' + KEY.replace("/", "\\/").encode() + b'"}'
    assert json.loads(KnownSecrets([KEY]).redact_json(raw)) == {"heard": "\ud800", "message": MASK}


@pytest.mark.parametrize("border", [1, 2])
def test_a_secret_that_reaches_into_a_block_that_is_not_searched_is_found(border: int) -> None:
    raw = b'{"audio":"'.ljust(border * BLOCK_BYTES - 5, b"x") + KEY.encode()
    raw = raw.ljust(2 * BLOCK_BYTES + 1000, b"x") + b'"}'
    assert KEY.encode() not in KnownSecrets([KEY]).redact_json(raw)


def test_secrets_are_added_and_none_is_forgotten() -> None:
    known = KnownSecrets([KEY])
    known.add(["another-key-1"])
    assert known.redact(f"{KEY} another-key-1") == f"{MASK} {MASK}"


def test_of_fetched_tokens_the_latest_are_known() -> None:
    known = KnownSecrets([KEY])
    tokens = [f"token-number-{n}" for n in range(MAX_ROTATING + 1)]
    for token in tokens:
        known.add_rotating(token)
    assert known.redact(" ".join([*tokens, KEY])) == " ".join([tokens[0], *[MASK] * MAX_ROTATING, MASK])


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        (f"reading: b'xx{KEY[:12]}...'", f"reading: b'xx{MASK}...'"),
        (f"{KEY[:9]}… and {KEY[:8]}", f"{MASK}… and {MASK}"),
        (f"{KEY[:7]}... {KEY[:12]} {KEY}", f"{KEY[:7]}... {KEY[:12]} {MASK}"),
        (f"{KEY[:8]}{KEY[:9]}...", f"{KEY[:8]}{MASK}..."),
    ],
)
def test_a_truncated_secret_is_redacted_as_well(text: str, redacted: str) -> None:
    assert KnownSecrets([KEY]).redact_truncated(text) == redacted


def test_every_truncated_secret_is_redacted() -> None:
    known = KnownSecrets([KEY])
    assert (
        known.redact_truncated(f"{KEY[:9]}... {KEY[:8]}x {KEY[:12]}…{KEY[:8]}") == f"{MASK}... {KEY[:8]}x {MASK}…{MASK}"
    )


@pytest.mark.parametrize("unit", [KEY[:9] + "...", KEY[:9], KEY[:8], KEY, "Z"])
def test_a_long_text_full_of_them_takes_time_by_its_length(unit: str) -> None:
    known = KnownSecrets([KEY])
    assert_linear(lambda n: known.redact_truncated(unit * n), 8_000)
