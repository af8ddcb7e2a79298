"""A WebSocket client that does not follow redirects, which would send the credential to another address."""

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus


class NoRedirectConnect(connect):
    """`websockets.connect` that raises `InvalidStatus` for a redirect."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Return the exception, so that it is raised."""
        return exc


def is_redirect(error: InvalidStatus) -> bool:
    """Return whether the server answered with a redirect."""
    return 300 <= error.response.status_code < 400
