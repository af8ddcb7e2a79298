"""Recordings of sessions: recorded live, finalized afterwards, read and replayed.

recordings/<started>-<session id>/
    session.json     the header: versions, settings, tools, policy, identity
    journal.jsonl    events, commands and audio with their times (relay.recording.format)
    client.pcm       audio from the client, unchanged
    upstream.pcm     audio from the upstream, decoded from base64
    voice.pcm        audio of an external TTS voice
    sent.pcm         audio to the client, if the relay converted it
    user.flac  assistant.flac  timeline.json  peaks.bin  transcript.vtt      derived from the others
    (relay.recording.postprocess)
"""
