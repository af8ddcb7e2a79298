"""A WebSocket client that follows no redirect, which would send the credential to another address."""

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus


class NoRedirectConnect(connect):
    """`websockets.connect`, for which a redirect is a refusal like any other (`InvalidStatus`)."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Return the refusal itself, so that it is raised."""
        return exc


def is_redirect(error: InvalidStatus) -> bool:
    """Whether the server answered with a redirect."""
    return 300 <= error.response.status_code < 400
