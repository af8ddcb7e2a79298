"""The rules of a Realtime client's session."""
