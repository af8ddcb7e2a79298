"""Groups of the `relay` command, one module each; `relay.cli.main` hooks them in, heavy imports wait for the call.

`finish_recordings` is no group: the relay runs it as a process of its own.
"""
