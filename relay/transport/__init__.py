"""The sockets: the client's end, the upstream's end, and what stands between the session and the client's speaker."""
