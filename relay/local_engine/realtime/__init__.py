"""OpenAI's Realtime protocol, as the local engine serves it."""
