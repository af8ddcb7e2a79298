"""Ears and voice in processes of their own: the server's loop stays free, and a crash of one costs one turn."""
