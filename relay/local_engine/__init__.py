"""The local engine: a server of the OpenAI Realtime protocol that needs no key, no network and no model download.

It is for development and tests. It understands English sentences that ask for the session's tools, and some small
talk, and answers with a synthetic voice. Start it with `python -m relay.local_engine`.

It supports conversation and transcription sessions, `idle_timeout_ms`, and retrieving items with their audio while it
is cached. `semantic_vad` judges a pause by the words recognized before it. Instructions and images are stored and
echoed, but have no effect. MCP tools are refused. Token counts are estimates.

`realtime` is the protocol. `speech` detects turns, recognizes and synthesizes; `workers` does so in other processes.
`nlu` understands sentences, `dialogue` decides what to answer, `elevenlabs` serves ElevenLabs' API.
"""
