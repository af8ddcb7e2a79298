"""Counting the members of a JSON text before it is parsed."""

import json
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.protocols import json_limits
from relay.protocols.json_limits import MAX_ESCAPES, has_too_many_members

TEXT = 'a, [b] {c} \\ " \\" ,,,'


def members_of(value: Any) -> int:
    """Commas and opening brackets outside of texts, as compact JSON has them."""
    if isinstance(value, dict):
        return 1 + max(0, len(value) - 1) + sum(map(members_of, value.values()))
    if isinstance(value, list):
        return 1 + max(0, len(value) - 1) + sum(map(members_of, value))
    return 0


JSON = st.recursive(
    st.none() | st.integers() | st.text(alphabet=' ,[{\\"\u00e9a', max_size=12),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=4), inner, max_size=8),
    max_leaves=40,
)


@given(JSON)
def test_the_count_is_that_of_the_parsed_value(value: Any) -> None:
    raw = json.dumps(value, ensure_ascii=False).encode()
    n_members = members_of(value)
    assert not has_too_many_members(raw, n_members)
    if n_members:
        assert has_too_many_members(raw, n_members - 1)


@given(JSON, st.integers(1, 9))
def test_the_count_does_not_depend_on_where_the_text_is_cut(value: Any, n_bytes: int) -> None:
    raw = json.dumps(value, ensure_ascii=False).encode()
    n_members = members_of(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_limits, "_CHUNK_BYTES", n_bytes)
        assert not has_too_many_members(raw, n_members)
        if n_members:
            assert has_too_many_members(raw, n_members - 1)


def test_escapes_have_a_bound_of_their_own() -> None:
    for escape in (b"\\n", b'\\"', b"\\\\", b"\\u0000"):
        assert not has_too_many_members(b'{"text":"' + escape * MAX_ESCAPES + b'"}', 10)
        assert has_too_many_members(b'{"text":"' + escape * (MAX_ESCAPES + 40_000) + b'"}', 10)


def test_structure_inside_strings_does_not_count() -> None:
    assert not has_too_many_members(json.dumps({"text": TEXT * 5_000}).encode(), 10)


@pytest.mark.parametrize(
    "raw",
    [
        b"[" + b",".join([b"{}"] * 190_000) + b"]",
        b"{" + b",".join([b'"k":1'] * 190_000) + b"}",
        b"[" + b",".join([b'""'] * 1_400_000) + b"]",
        b'"' * 1_000_000 + b"," * 20_000,
        b"[" * 1_000_000,
        b'"' * 16_000_000,
        b'["' + b'\\"' * 8_000_000,
        b'["' + b"\\" * 16_000_000,
    ],
    ids=["objects", "members", "texts", "no JSON", "nesting", "quotes", "escaped quotes", "backslashes"],
)
def test_many_members_are_seen_in_little_time(raw: bytes) -> None:
    costs_s = []
    for _ in range(3):
        began_s = process_time()
        assert has_too_many_members(raw, 10_000)
        costs_s.append(process_time() - began_s)
    assert min(costs_s) < 0.015
