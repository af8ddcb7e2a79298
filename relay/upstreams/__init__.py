"""Realtime upstreams: protocol dialects, endpoints and credentials."""
