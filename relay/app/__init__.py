"""The middleware: CORS, errors as JSON, the log of refusals, redaction of answers."""
