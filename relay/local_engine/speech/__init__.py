"""Speech: turn detection, recognition and synthesis."""
