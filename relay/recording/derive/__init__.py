"""What is made from a recording: the conversation, its timeline, and the audio that was heard."""
