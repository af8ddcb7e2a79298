"""JSON Schema and validation of a tool's arguments."""
