"""ElevenLabs' text-to-speech API, served by the local engine."""
