"""The protocols of clients and upstreams. Pure: no socket, clock, task or randomness."""
