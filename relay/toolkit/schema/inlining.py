"""Makes pydantic's JSON Schema plain: no titles, and definitions put in place of their references."""

from typing import Any

_SCHEMA_MAPS = ("properties", "patternProperties")
_SCHEMA_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE_SCHEMAS = ("items", "additionalProperties", "not", "contains", "propertyNames")
_DEFS_PREFIX = "#/$defs/"


def inline_refs(schema: dict[str, Any]) -> dict[str, Any]:
    """Returns a copy without titles and, unless a type contains itself, without `$defs`.

    Not every model and engine follows references, so only recursive types keep theirs.
    """
    definitions: dict[str, Any] = schema.get("$defs", {})
    recursive = {name for name in definitions if name in _reachable_definitions(definitions[name], definitions)}
    plain: dict[str, Any] = _inline(
        {key: value for key, value in schema.items() if key != "$defs"}, definitions, recursive
    )
    if recursive:
        plain["$defs"] = {name: _inline(definitions[name], definitions, recursive) for name in sorted(recursive)}
    return plain


def _inline(node: Any, definitions: dict[str, Any], recursive: set[str]) -> Any:
    if not isinstance(node, dict):
        return node  # `additionalProperties: false`
    reference = _ref_target(node)
    if reference is not None and reference not in recursive:
        beside = {key: value for key, value in node.items() if key != "$ref"}
        node = {**definitions[reference], **beside}
    plain: dict[str, Any] = {}
    for key, value in node.items():
        if key in ("title", "discriminator"):  # a discriminator points at definitions that are gone
            continue
        if key in _SCHEMA_MAPS:
            value = {name: _inline(one, definitions, recursive) for name, one in value.items()}
        elif key in _SCHEMA_LISTS:
            value = [_inline(one, definitions, recursive) for one in value]
        elif key in _SINGLE_SCHEMAS:
            value = _inline(value, definitions, recursive)
        plain[key] = value
    return plain


def _ref_target(node: dict[str, Any]) -> str | None:
    reference = node.get("$ref")
    return reference.removeprefix(_DEFS_PREFIX) if isinstance(reference, str) else None


def _reachable_definitions(node: Any, definitions: dict[str, Any]) -> set[str]:
    """The names of all definitions that a schema leads to."""
    found: set[str] = set()
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            target = _ref_target(one)
            if target in definitions and target not in found:
                found.add(target)
                waiting.append(definitions[target])
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
    return found
