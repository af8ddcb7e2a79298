"""Derived data of a recording: normalized events, timeline, tracks, transcript."""
