"""Groups of the `relay` command, one module each; `relay.cli` hooks them in, heavy imports wait for the call."""
