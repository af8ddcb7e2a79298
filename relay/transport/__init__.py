"""Sockets and HTTP clients: clients' WebSockets, upstreams, providers."""
