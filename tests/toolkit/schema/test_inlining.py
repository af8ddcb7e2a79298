"""A schema with references in, a plain one out."""

from typing import Any

from relay.toolkit.schema.inlining import inline_refs


def test_titles_go_but_a_property_of_that_name_stays() -> None:
    schema = {
        "title": "Arguments",
        "type": "object",
        "properties": {"title": {"title": "Title", "type": "string", "default": {"title": "kept"}}},
    }
    assert inline_refs(schema) == {
        "type": "object",
        "properties": {"title": {"type": "string", "default": {"title": "kept"}}},
    }


def test_a_reference_becomes_what_it_refers_to_and_keeps_what_stands_beside_it() -> None:
    schema = {
        "properties": {"a": {"$ref": "#/$defs/A", "description": "mine"}},
        "$defs": {
            "A": {"title": "A", "description": "of A", "items": {"$ref": "#/$defs/B"}},
            "B": {"anyOf": [{"type": "null"}, {"title": "C", "type": "integer"}]},
        },
    }
    inner = {"anyOf": [{"type": "null"}, {"type": "integer"}]}
    assert inline_refs(schema) == {"properties": {"a": {"description": "mine", "items": inner}}}


def test_only_types_that_contain_themselves_keep_their_definition() -> None:
    schema: dict[str, Any] = {
        "properties": {"root": {"$ref": "#/$defs/Root"}},
        "$defs": {
            "Root": {"title": "Root", "properties": {"one": {"$ref": "#/$defs/Ping"}}},
            "Ping": {"title": "Ping", "additionalProperties": {"$ref": "#/$defs/Pong"}},
            "Pong": {"items": {"$ref": "#/$defs/Ping"}},
        },
    }
    assert inline_refs(schema) == {
        "properties": {"root": {"properties": {"one": {"$ref": "#/$defs/Ping"}}}},
        "$defs": {
            "Ping": {"additionalProperties": {"$ref": "#/$defs/Pong"}},
            "Pong": {"items": {"$ref": "#/$defs/Ping"}},
        },
    }


def test_a_discriminator_goes_with_the_definitions_it_points_at() -> None:
    schema = {
        "oneOf": [{"$ref": "#/$defs/Cat"}],
        "discriminator": {"propertyName": "kind", "mapping": {"cat": "#/$defs/Cat"}},
        "$defs": {"Cat": {"type": "object"}},
    }
    assert inline_refs(schema) == {"oneOf": [{"type": "object"}]}
