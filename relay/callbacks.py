"""The callback of whoever does not want to be called back."""


def ignore(*_args: object) -> None:
    """Do nothing."""
