"""Tools for tests: an upstream that follows a script, and faults of upstreams."""
