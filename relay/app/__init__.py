"""The application: its parts, the sessions and what makes them, the tools, connections, and the middleware."""
