"""The rules of an external TTS voice: its stream, its sentences, and the alignment of text and audio."""
