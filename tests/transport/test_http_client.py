"""Calls to providers: what is sent again, and what an error code may look like. The rest is in the endpoints' tests."""

import asyncio
import ssl
from pathlib import Path

import pytest

from relay.errors import UpstreamError
from relay.transport import http_client as provider_module
from relay.transport.http_client import HttpRequest, ProviderHttpClient, error_code

CERTIFICATE = Path(__file__).parent.parent / "support" / "self_signed.pem"
TIMEOUT_S = 10.0


def call_to(port: int, scheme: str = "http", **headers: str) -> HttpRequest:
    return HttpRequest(name="Test", url=f"{scheme}://127.0.0.1:{port}/x", headers=headers, body={}, timeout_s=TIMEOUT_S)


async def failure(call: HttpRequest) -> str:
    client = ProviderHttpClient()
    try:
        with pytest.raises(UpstreamError) as error:
            await client.fetch(call)
        return str(error.value)
    finally:
        await client.close()


async def test_a_connection_that_could_not_be_made_is_tried_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    client, opened = ProviderHttpClient(), []

    async def open_the_door(delay_s: float) -> None:
        opened.append(await asyncio.start_server(answer, "127.0.0.1", port))

    monkeypatch.setattr(provider_module.asyncio, "sleep", open_the_door)
    assert (await client.fetch(call_to(port))).json_object() == {}
    await client.close()
    assert len(opened) == 1
    opened[0].close()
    await opened[0].wait_closed()


async def test_an_untrusted_certificate_is_told() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0, ssl=context)
    async with server:
        said = await failure(call_to(server.sockets[0].getsockname()[1], "https"))
    assert said == "Test failed: no trusted TLS connection to 127.0.0.1."


@pytest.mark.parametrize(("url", "key"), [("http://127.0.0.1:9/", "a\nb"), ("nowhere", "k"), ("http://[/", "k")])
async def test_what_cannot_be_sent_is_told_without_it(url: str, key: str) -> None:
    said = await failure(HttpRequest(name="Test", url=url, headers={"xi-api-key": key}))
    assert said.startswith("Test failed")
    assert "a\nb" not in said


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"error": {"code": "invalid_api_key", "type": "t"}}', "invalid_api_key"),
        (b'{"error": {"code": null, "type": "server_error"}}', "server_error"),
        (b'{"error": {"code": 401}}', "401"),
        (b'{"detail": {"status": "voice_not_found"}}', "voice_not_found"),
        (b'{"error": {"code": "DeploymentNotFound"}}', "DeploymentNotFound"),
        (b'{"error": {"code": "two words"}}', None),
        (b'{"error": {"code": "sk-abcdefgh"}}', None),
        (b'{"error": {"code": "0123456789abcdef"}}', None),
        (b'{"error": {"code": "partofthekey"}}', None),
        (b'{"error": {"code": {"a": 1}}}', None),
        (b'{"error": "text"}', None),
        (b'{"detail": [{"loc": []}]}', None),
        (b"[]", None),
        (b"not json", None),
        (b"[" * 100_000, None),
        (b"\xff\xfe", None),
    ],
)
def test_codes_are_words_and_never_a_part_of_a_key(body: bytes, code: str | None) -> None:
    assert error_code(body, {"Authorization": "Bearer xpartofthekeyx"}) == code
