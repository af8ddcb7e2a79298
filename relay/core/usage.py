"""Tokens: the usage of responses added up (D11)."""

from dataclasses import fields

from relay.core.values import Usage


def add_usage(total: Usage, more: Usage) -> Usage:
    """The sum of two usages, field by field."""
    return Usage(**{f.name: getattr(total, f.name) + getattr(more, f.name) for f in fields(Usage)})
