"""The engine's voices."""
