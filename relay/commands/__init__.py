"""The command-line groups; `relay.cli` hooks them in. Heavy imports wait until a command runs."""
