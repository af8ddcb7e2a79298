"""The languages of both ends: bytes to events, commands to bytes. Pure; one codec object per connection."""
