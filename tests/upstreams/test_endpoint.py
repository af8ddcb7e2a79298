"""An upstream's endpoint: the dialect that it speaks, what a dial sends, and whether Realtime clients can be served."""

from dataclasses import replace

import pytest
from pydantic import SecretStr

from relay import tool
from relay.errors import OpenAIError
from relay.protocols.openai.beta import BetaUpstreamDialect
from relay.toolkit.registry import Tool, ToolRegistry
from relay.upstreams.credentials import KeyCredential
from relay.upstreams.endpoint import UpstreamEndpoint
from relay.upstreams.registry import AZURE_PREVIEW, OPENAI, OPENAI_BETA, UpstreamDialect, find_dialect
from tests.support.relay_server import DeviceClient, running_relay

ENDPOINT = UpstreamEndpoint("url", "wss://example.com/v1/realtime?model=a", SecretStr("key"))


@pytest.mark.parametrize(
    ("url", "name", "dialect"),
    [
        ("wss://example.com/v1/realtime?model=a", "auto", OPENAI),
        ("wss://res.openai.azure.com/openai/v1/realtime?model=a", "auto", OPENAI),
        ("wss://res.openai.azure.com/openai/realtime?api-version=v&deployment=a", "auto", AZURE_PREVIEW),
        ("wss://example.com/v1/realtime?model=a", "openai-beta", OPENAI_BETA),
        (None, "auto", OPENAI),
        (None, "openai-beta", OPENAI_BETA),
    ],
)
def test_the_dialect_of_an_endpoint(url: str | None, name: str, dialect: UpstreamDialect) -> None:
    assert find_dialect(url, name) is dialect


async def test_a_dial_sends_what_the_dialect_demands_besides_the_credential() -> None:
    credential, beta = KeyCredential("api-key", "secret"), replace(ENDPOINT, dialect=OPENAI_BETA)
    assert await ENDPOINT.headers(None) == {}
    assert await ENDPOINT.headers(credential) == {"api-key": "secret"}
    assert await beta.headers(credential) == {"api-key": "secret", "OpenAI-Beta": "realtime=v1"}


def test_a_dialect_may_have_the_model_elsewhere_in_the_url() -> None:
    in_path = replace(OPENAI, url_for=lambda url, model: f"{url}/{model}")
    assert ENDPOINT.url_for("b") == "wss://example.com/v1/realtime?model=b"
    assert replace(ENDPOINT, dialect=in_path, url="wss://example.com").url_for("b") == "wss://example.com/b"
    assert replace(ENDPOINT, dialect=in_path).url_for(None) == ENDPOINT.url


async def test_a_dialect_may_have_the_key_in_the_query() -> None:
    in_query = replace(ENDPOINT, dialect=replace(OPENAI, key_query_parameter="key"), key=SecretStr("a b"))
    assert in_query.url_for() == "wss://example.com/v1/realtime?model=a&key=a+b"
    assert in_query.url_for("b") == "wss://example.com/v1/realtime?model=b&key=a+b"
    assert replace(in_query, key=None).url_for() == ENDPOINT.url_for() == ENDPOINT.url
    assert await in_query.headers(KeyCredential("bearer", "a b")) == {}
    assert "a b" not in in_query.label


def test_realtime_clients_are_translated_for_passed_on_or_refused() -> None:
    assert ENDPOINT.realtime_dialect() is None
    assert isinstance(replace(ENDPOINT, dialect=AZURE_PREVIEW).realtime_dialect(), BetaUpstreamDialect)
    with pytest.raises(OpenAIError, match="morse") as refusal:
        replace(ENDPOINT, dialect=UpstreamDialect("morse", OPENAI.codec, realtime=None)).realtime_dialect()
    assert refusal.value.status == 501


@tool(examples=["open the door"], expose={"model", "client"})
def open_door() -> dict[str, str]:
    return {"summary": "The door is open."}


async def test_a_conversation_with_an_upstream_that_speaks_beta() -> None:
    registry = ToolRegistry([Tool.from_function(open_door)])
    async with (
        running_relay("local", registry, upstream_dialect="openai-beta") as relay,
        await DeviceClient.connect(relay.ws()) as client,
    ):
        await client.expect("AIConnected")
        await client.send(type="text", text="open the door")
        assert (await client.expect("tool"))["name"] == "open_door"
        while (ended := await client.expect("AIResponseEnd"))["more"]:
            pass
        assert ended["finalText"] == "The door is open."
        await client.expect("audioEnd")
        assert len(client.audio) > 10_000
