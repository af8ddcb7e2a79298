"""What is said on the wire, to clients and upstreams. Pure: no socket, clock, task or randomness."""
