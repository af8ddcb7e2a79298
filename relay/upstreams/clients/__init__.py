"""What connects: to the upstream of a session, and to the HTTP APIs of providers."""
