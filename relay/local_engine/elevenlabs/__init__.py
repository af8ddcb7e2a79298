"""ElevenLabs' API, as the local engine serves it."""
