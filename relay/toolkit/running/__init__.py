"""Running tool calls, and the result that the model gets."""
