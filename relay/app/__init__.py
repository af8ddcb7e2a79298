"""Connections and middleware: bodies, CORS, errors as JSON, the log of refusals, redaction of answers."""
