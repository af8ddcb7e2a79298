"""`relay secret`: get a short-lived secret of OpenAI or Azure from the terminal."""

import asyncio
import shlex
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay.cli.terminal import say, say_json, say_lines

if TYPE_CHECKING:
    from relay.config.settings import Settings


def secret(
    model: Annotated[str | None, typer.Option(help="Model (OPENAI_REALTIME_MODEL). Not with --azure.")] = None,
    voice: Annotated[str | None, typer.Option(help="Voice (OPENAI_REALTIME_VOICE; with --azure: alloy).")] = None,
    instructions: Annotated[str | None, typer.Option(help="Instructions (OPENAI_REALTIME_INSTRUCTIONS).")] = None,
    language: Annotated[str | None, typer.Option(help="Language of the answers. Not with --azure.")] = None,
    azure: Annotated[bool, typer.Option("--azure", help="Get it from the Azure resource instead of OpenAI.")] = False,
    curl: Annotated[bool, typer.Option("--curl", help="Print the curl command for a WebRTC call with it.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the whole response as JSON.")] = False,
) -> None:
    """Get a short-lived secret of OpenAI or Azure for a browser, and print it. Its user talks at your expense.

    A session opened with it bypasses the relay and its policies. For the relay's own client secrets, use
    `POST /v1/realtime/client_secrets`.
    """
    from relay.app.log_setup import setup_logging
    from relay.config.settings import Settings
    from relay.errors import BadRequest, UpstreamError

    setup_logging("error", "text")  # failures are printed below
    settings = Settings.load()
    if azure and (model or language):
        raise BadRequest("--model and --language are for OpenAI only; an Azure deployment has its model already.")
    mint = (
        _create_azure_session(settings, voice, instructions)
        if azure
        else _create_openai_secret(settings, model=model, voice=voice, instructions=instructions, language=language)
    )
    try:
        answer, url = asyncio.run(mint)
    except UpstreamError as error:
        say(f"relay: {error}; `relay check` says which setting to change", err=True)
        raise typer.Exit(1) from None
    value = answer.get("ephemeralKey" if azure else "value")
    if not isinstance(value, str) or not value.isprintable():  # users copy it from the terminal
        say("relay: the response contains no secret", err=True)
        raise typer.Exit(1)
    if json:
        say_json(answer)
    elif curl:
        say_lines(curl_call(url, value), indent=0)
    else:
        say(value)
    expires_at = answer.get("expiresAt" if azure else "expires_at")
    if isinstance(expires_at, int) and sys.stderr.isatty():
        say(f"valid until {datetime.fromtimestamp(expires_at, UTC):%Y-%m-%d %H:%M:%S} UTC", err=True)


async def _create_openai_secret(settings: "Settings", **fields: str | None) -> tuple[dict[str, Any], str]:
    from relay.errors import NotConfigured
    from relay.upstreams.clients.browser_secrets import ClientSecretRequest, create_client_secret, rest_base_url

    options = settings.navai_options()
    if options.openai_api_key is None:
        raise NotConfigured("A key is needed: set OPENAI_API_KEY, or use --azure.")
    answer = await create_client_secret(options, ClientSecretRequest(**fields))
    return answer, f"{rest_base_url(options.openai_base_url)}/realtime/calls"


async def _create_azure_session(
    settings: "Settings", voice: str | None, instructions: str | None
) -> tuple[dict[str, Any], str]:
    from relay.errors import NotConfigured
    from relay.transport.http_client import ProviderHttpClient
    from relay.upstreams.clients.browser_secrets import (
        AZURE_NOT_CONFIGURED_TEXT,
        AzureSessionClient,
        AzureSessionRequest,
    )
    from relay.upstreams.clients.connector import azure_credential

    resource, credential = settings.azure.resource, azure_credential(settings)
    if resource is None or credential is None:
        raise NotConfigured(AZURE_NOT_CONFIGURED_TEXT)
    request = AzureSessionRequest(voice=voice, instructions=instructions)
    async with ProviderHttpClient() as provider:
        answer = await AzureSessionClient(resource, credential, provider).create(request)
    return answer, resource.webrtc_url


def curl_call(url: str, value: str) -> str:
    """Return the curl command that sends an SDP offer and prints the SDP answer."""
    header = f"Authorization: Bearer {value}"
    return (
        f"curl --fail-with-body {shlex.quote(url)} \\\n"
        f"  -H {shlex.quote(header)} \\\n"
        "  -H 'Content-Type: application/sdp' \\\n"
        "  --data-binary @offer.sdp"
    )
