"""The application of a relay: its parts, sessions, tools, HTTP connections, routes and middleware."""
