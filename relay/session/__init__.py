"""The rules of a session: pure, one event in, commands out."""
