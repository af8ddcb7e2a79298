"""Function calls of the model, in sessions of all kinds."""
