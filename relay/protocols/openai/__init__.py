"""OpenAI's Realtime protocol, GA and beta."""
