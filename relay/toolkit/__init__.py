"""How tools are described, found and run; imports little of Relay, and nothing of sessions or clients."""
