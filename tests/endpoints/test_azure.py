"""Azure: sessions for pages by GA, quotas, bearer tokens, the prefix, and the relay's own sessions through it."""

import asyncio
import logging
from typing import Any

import pytest
from openai.types.realtime import RealtimeSessionCreateRequestParam
from pydantic import TypeAdapter

from relay import tool
from relay.app.context import UPSTREAM
from relay.toolkit.registry import Tool, ToolRegistry
from tests.support.contract_client import AZURE_KEY, SESSION_PATH, contract_client
from tests.support.relay_server import DeviceClient, running_relay
from tests.support.scripted_provider import ScriptedProvider, ScriptedResponse, scripted_provider

DEPLOYMENT = "gpt-realtime-dep"
TIMEOUT_S = 10.0
PREFIX = "/api/ai-assistant/realtime"


# -- sessions for pages -----------------------------------------------------------------------------------------------


async def test_a_session_by_the_ga_protocol() -> None:
    async with contract_client(azure_deployment=DEPLOYMENT) as harness:
        status, body, headers = await harness.call(
            "POST", SESSION_PATH, {"voice": "cedar", "instructions": " Be brief. "}
        )
        assert (status, headers["Cache-Control"]) == (200, "no-store")
        assert body == {
            "sessionId": "sess_abc",
            "webrtcUrl": f"{harness.provider.url}/openai/v1/realtime/calls",
            "ephemeralKey": "ek_test_123",
            "expiresAt": 1730000000,
            "model": DEPLOYMENT,
        }
        sent = harness.provider.last
        assert sent.path == "/openai/v1/realtime/client_secrets"
        assert sent.headers["api-key"] == AZURE_KEY
        assert sent.body == {
            "session": {
                "type": "realtime",
                "model": DEPLOYMENT,
                "audio": {"output": {"voice": "cedar"}},
                "instructions": "Be brief.",
            }
        }
        TypeAdapter(RealtimeSessionCreateRequestParam).validate_python(sent.body["session"])


async def test_a_temperature_is_answered_with_a_warning_on_ga() -> None:
    async with contract_client(azure_deployment=DEPLOYMENT) as harness:
        _, body = await harness.post(SESSION_PATH, {"temperature": 0.7})
        assert "temperature" in body["warning"]
        assert "temperature" not in harness.provider.last.body["session"]
        assert harness.provider.last.body["session"]["audio"] == {"output": {"voice": "alloy"}}


@pytest.mark.parametrize(
    ("body", "field"),
    [({"voice": 5}, "voice"), ({"instructions": []}, "instructions"), ({"temperature": "hot"}, "temperature")],
)
async def test_a_field_of_the_wrong_type_is_named(body: dict[str, Any], field: str) -> None:
    async with contract_client(azure_deployment=DEPLOYMENT) as harness:
        status, answer = await harness.post(SESSION_PATH, body)
        assert (status, answer["field"]) == (400, field)
        assert not harness.provider.seen


async def test_the_preview_protocol_knows_three_voices() -> None:
    async with contract_client(azure_deployment=DEPLOYMENT, azure_api_version="v") as harness:
        status, answer = await harness.post(SESSION_PATH, {"voice": "marin"})
        assert (status, answer["error"]) == (400, "Invalid voice: marin. Must be one of: alloy, echo, shimmer")


async def test_without_azure_it_says_what_to_set() -> None:
    async with contract_client() as harness:
        status, answer = await harness.post(SESSION_PATH)
        assert status == 503
        assert "AZURE_OPENAI_ENDPOINT" in answer["error"]


async def test_a_form_of_a_foreign_page_is_refused() -> None:
    async with contract_client(azure_deployment=DEPLOYMENT) as harness:
        status, answer, _ = await harness.call("POST", SESSION_PATH, data=b"{}", headers={"Content-Type": "text/plain"})
        assert (status, answer["field"]) == (400, "Content-Type")


async def test_sessions_share_the_quota_of_secrets() -> None:
    async with contract_client(azure_deployment=DEPLOYMENT, limits_provider_secrets_per_minute=1) as harness:
        assert (await harness.post(SESSION_PATH))[0] == 200
        assert (await harness.post("/navai/realtime/client-secret"))[0] == 429
        status, _, headers = await harness.call("POST", SESSION_PATH, {})
        assert (status, int(headers["Retry-After"]) > 0) == (429, True)


@pytest.mark.parametrize(
    ("script", "status", "text"),
    [
        (ScriptedResponse(status=401, json={"error": {"code": "401", "message": AZURE_KEY}}), 502, "(401): 401"),
        (ScriptedResponse(status=403, json={"error": {"code": "403"}}), 502, "(403)"),
        (
            ScriptedResponse(status=404, json={"error": {"code": "DeploymentNotFound"}}),
            502,
            "(404): DeploymentNotFound",
        ),
        (ScriptedResponse(status=429, json={"error": {"code": "429"}}, headers={"Retry-After": "3"}), 502, "(429)"),
        (ScriptedResponse(status=500, body=b"oops " + AZURE_KEY.encode()), 502, "(500)"),
        (ScriptedResponse(status=400, json={"error": {"code": AZURE_KEY}}), 502, "(400)"),
        (ScriptedResponse(body=b"not json"), 502, "not a JSON object"),
        (ScriptedResponse(json={"session": {"id": "x"}}), 502, "no client secret"),
        (ScriptedResponse(json={"value": 5}), 502, "no client secret"),
        (ScriptedResponse(body=b"x" * 10_000_000), 502, "larger than"),
        (ScriptedResponse(hang_up=True), 502, "connection was lost"),
        (ScriptedResponse(cut_after=3, body=b'{"value": "x"}'), 502, "connection was lost"),
    ],
    ids=lambda value: str(value)[:50],
)
async def test_every_failure_is_told_without_key_or_raw_body(
    script: ScriptedResponse, status: int, text: str, caplog
) -> None:
    caplog.set_level(logging.DEBUG)
    async with contract_client(azure_deployment=DEPLOYMENT) as harness:
        harness.provider.script = script
        code, answer, headers = await harness.call("POST", SESSION_PATH, {})
        assert (code, answer["error"]) == (status, "Failed to create realtime session")
        assert text in answer["details"]
        assert headers.get("Retry-After") == script.headers.get("Retry-After")
        assert AZURE_KEY not in str(answer) + caplog.text
        assert "oops" not in str(answer) + caplog.text


async def test_a_slow_azure_is_a_504(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.upstreams.clients.browser_secrets.AZURE_TIMEOUT_S", 0.2)
    async with contract_client(azure_deployment=DEPLOYMENT) as harness:
        harness.provider.script = ScriptedResponse(hang=True)
        assert (await harness.post(SESSION_PATH))[0] == 504


async def test_a_bearer_token_is_fetched_for_each_session() -> None:
    tokens = iter(["entra-1", "entra-2"])
    async with contract_client(
        azure_deployment=DEPLOYMENT, azure_api_key=None, azure_token_provider=lambda: next(tokens)
    ) as harness:
        for expected in ("entra-1", "entra-2"):
            assert (await harness.post(SESSION_PATH))[0] == 200
            assert harness.provider.last.headers["authorization"] == f"Bearer {expected}"
            assert "api-key" not in harness.provider.last.headers
        status, answer = await harness.post(SESSION_PATH)
        assert (status, answer["details"]) == (
            502,
            "The token provider failed (RuntimeError); check RELAY_AZURE_TOKEN.",
        )


async def test_the_routes_can_be_moved() -> None:
    async with contract_client(azure_deployment=DEPLOYMENT, azure_routes_prefix="/voice/v1") as harness:
        assert (await harness.post("/voice/v1/realtime/session"))[0] == 200
        assert (await harness.post(SESSION_PATH))[0] == 404


# -- companions -------------------------------------------------------------------------------------------------------


@tool(expose=["model"])
def for_the_model_alone() -> str:
    """Not for pages."""
    return "secret"


@tool
def greet(name: str) -> str:
    """Greets."""
    return f"Hello {name}"


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"name": "greet", "arguments": {"name": "Ana"}}, 200, "Hello Ana"),
        ({"name": "greet", "arguments": []}, 400, "arguments must be an object"),
        ({"name": "greet", "arguments": "{}"}, 400, "arguments must be an object"),
        ({"name": 5}, 400, "name must be a string"),
        ({"name": "nobody"}, 404, "Tool not found: nobody"),
        ({"name": "for_the_model_alone"}, 403, "is not exposed to HTTP"),
        ({"name": "greet", "arguments": {f"k{n}": n for n in range(5_000)}}, 400, "the limit is 256"),
    ],
)
async def test_tools_are_run_for_pages(body: dict[str, Any], status: int, text: str) -> None:
    tools = ToolRegistry(Tool.from_function(one) for one in (greet, for_the_model_alone))
    async with contract_client(registry=tools) as harness:
        code, answer = await harness.post(f"{PREFIX}/tools/exec", body)
        assert code == status
        assert text in str(answer)
        _, listed, _ = await harness.call("GET", f"{PREFIX}/tools")
        assert [one["name"] for one in listed["tools"]] == ["greet"]


# -- the relay's own upstream -----------------------------------------------------------------------------------------


def resource_at(provider: ScriptedProvider) -> dict[str, str]:
    return {"azure_endpoint": provider.url, "azure_deployment": DEPLOYMENT}


async def test_a_device_talks_through_azure_with_a_key() -> None:
    async with (
        scripted_provider() as provider,
        running_relay(
            "azure", azure_endpoint=provider.url, azure_deployment=DEPLOYMENT, azure_api_key=AZURE_KEY
        ) as relay,
        asyncio.timeout(TIMEOUT_S),
    ):
        assert relay.app[UPSTREAM].endpoint.kind == "azure"
        async with await DeviceClient.connect(relay.ws()) as client:
            await client.expect("AIConnected")
        dialled = provider.seen[0]
        assert dialled.path == f"/openai/v1/realtime?model={DEPLOYMENT}"
        assert dialled.headers["api-key"] == AZURE_KEY
        assert "authorization" not in dialled.headers
        assert provider.last.body["session"]["type"] == "realtime"


async def test_every_dial_fetches_its_token() -> None:
    tokens = iter(["entra-1", "entra-2"])
    async with (
        scripted_provider() as provider,
        running_relay("azure", azure_token_provider=lambda: next(tokens), **resource_at(provider)) as relay,
        asyncio.timeout(TIMEOUT_S),
    ):
        for _ in range(2):
            async with await DeviceClient.connect(relay.ws()) as client:
                await client.expect("AIConnected")
        dials = [one.headers for one in provider.seen if one.method == "GET"]
        assert [one["authorization"] for one in dials] == ["Bearer entra-1", "Bearer entra-2"]
        assert not any("api-key" in one for one in dials)
        async with await DeviceClient.connect(relay.ws()) as client:
            told = await client.expect("error")
            assert "token provider" in told["message"]


async def test_a_refused_key_is_told_and_not_shown(caplog) -> None:
    async with (
        scripted_provider() as provider,
        running_relay(
            "azure", azure_endpoint=provider.url, azure_deployment=DEPLOYMENT, azure_api_key=AZURE_KEY
        ) as relay,
        asyncio.timeout(TIMEOUT_S),
    ):
        provider.keys = {"another"}
        async with await DeviceClient.connect(relay.ws()) as client:
            told = await client.expect("error")
            assert "401" in told["message"]
            assert AZURE_KEY not in str(client.messages) + caplog.text
