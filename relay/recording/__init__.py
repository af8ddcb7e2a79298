"""Recordings: how they are written while people talk, what is made of them afterwards, and how they are read again.

recordings/<started>-<session id>/
    session.json     the header: versions, settings, tools, policy, who
    journal.jsonl    events, commands and audio with their times (relay.recording.format)
    client.pcm       what the client sent, as it came
    upstream.pcm     what the model sent, decoded from base64 and otherwise as it came
    voice.pcm        what an external voice spoke, in the same way
    sent.pcm         what the client was sent, where the relay had to convert it
    user.flac  assistant.flac  timeline.json  peaks.bin  transcript.vtt      made of the others
    (relay.recording.postprocess)
"""
