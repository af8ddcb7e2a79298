"""Redaction of recordings before they are shared."""
