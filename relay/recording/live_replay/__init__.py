"""A recording against live peers: as the upstream of a client, or as the client of a relay."""
