"""Tools: their schema, loading and execution. Imports no session or client code."""
