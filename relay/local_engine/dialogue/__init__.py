"""Dialogue: what the local engine says and calls in a response."""
