"""Function calls of the model, for all kinds of sessions."""
