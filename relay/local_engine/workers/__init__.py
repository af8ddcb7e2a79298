"""Worker processes for recognition and synthesis: the server's loop stays free, and a crash costs one turn."""
