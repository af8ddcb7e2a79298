"""The local engine: a server of the OpenAI Realtime protocol without key, network or model download.

It is a rehearsal partner and says so: it understands sentences made from the session's tools and some small talk, in
English, and answers with a synthetic voice. Start it with `python -m relay.local_engine`.

What it does not do, although the protocol has it: it follows no instructions (they are kept and echoed), sees no
images, calls no MCP servers, gives back no audio of items, has no transcription sessions and no idle timeout, and its
token counts are estimates. Semantic turn detection is played by a pause that fits the eagerness.
"""
