"""Replay of a recording through the current rules, offline."""
