"""How tools are described, found and run; imports nothing of Relay but `relay.errors`."""
