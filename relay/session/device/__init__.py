"""The rules of a device client's session."""
