"""A client of the device protocol."""
