"""The device protocol, version 1: binary PCM16 and small JSON messages."""
