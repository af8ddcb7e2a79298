"""Groups of the `relay` command, one module each."""
