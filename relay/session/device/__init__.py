"""The rules of a session with a device client."""
