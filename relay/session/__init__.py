"""The rules of sessions. They do no I/O: one event in, commands out."""
