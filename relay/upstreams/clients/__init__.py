"""Clients of session upstreams and of providers' HTTP APIs."""
