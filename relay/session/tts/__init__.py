"""The rules of an external TTS voice: its stream, its sentences, and what of its text was heard."""
