"""The local engine: a server of the OpenAI Realtime protocol without key, network or model download.

It is a rehearsal partner and says so: it understands sentences made from the session's tools and some small talk, in
English, and answers with a synthetic voice. Start it with `python -m relay.local_engine`.

It has conversation and transcription sessions, `idle_timeout_ms`, and items that are retrieved with their audio while
that is kept. `semantic_vad` judges a pause by the words recognized before it. Two things of the protocol are kept and
echoed, but have no effect: instructions and images. MCP tools are refused. Token counts are estimates.
"""
