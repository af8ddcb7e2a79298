"""Secrets: what is sent to OpenAI, who pays with which key, and every way that OpenAI can fail."""

import asyncio
import logging

import aiohttp
import pytest
from aiohttp import web
from openai.types.realtime import ClientSecretCreateResponse
from pydantic import TypeAdapter

from relay.endpoints.navai import NavaiOptions, NavaiPaths, add_routes, client_secret_handler, create_client_secret
from relay.errors import AccessDenied, ConfigError, NotConfigured, UpstreamError, UpstreamTimeout
from relay.toolkit.registry import ToolRegistry
from relay.upstreams.clients.browser_secrets import ClientSecretRequest, build_session
from tests.support.contract_client import BACKEND_KEY, SECRET_PATH, contract_client, navai_env
from tests.support.relay_server import serve_app
from tests.support.scripted_provider import SECRET, ScriptedProvider, ScriptedResponse, scripted_provider

REQUEST_KEY = "sk-request-0002"


# -- the contract -----------------------------------------------------------------------------------------------------


def test_the_scripted_answer_has_the_shape_of_the_official_types() -> None:
    assert ClientSecretCreateResponse.model_validate(SECRET).value == "ek_test_123"
    from openai.types.realtime import RealtimeSessionCreateRequestParam

    for env in ({}, {"NAVAI_TTS_PROVIDER": "elevenlabs", "ELEVENLABS_API_KEY": "k", "ELEVENLABS_VOICE_ID": "v"}):
        session = build_session(NavaiOptions.from_env(env), ClientSecretRequest())
        TypeAdapter(RealtimeSessionCreateRequestParam).validate_python(session)
        assert session.keys() <= RealtimeSessionCreateRequestParam.__annotations__.keys()


async def test_a_secret_is_minted_and_not_to_be_stored() -> None:
    async with contract_client() as harness:
        status, body, headers = await harness.call("POST", SECRET_PATH, {"voice": "cedar"})
        assert (status, headers["Cache-Control"]) == (200, "no-store")
        assert body == {"value": "ek_test_123", "expires_at": 1730000000, "speech": {"provider": "openai"}}
        assert harness.provider.last.path == "/v1/realtime/client_secrets"
        assert harness.provider.last.headers["authorization"] == f"Bearer {BACKEND_KEY}"
        assert harness.provider.last.body["session"]["audio"] == {"output": {"voice": "cedar"}}


@pytest.mark.parametrize("path", [SECRET_PATH.upper(), f"{SECRET_PATH}/"])
async def test_the_path_may_differ_in_case_and_end_with_a_slash(path: str) -> None:
    async with contract_client() as harness:
        assert (await harness.post(path))[0] == 200


async def test_a_realtime_base_url_is_good_for_rest_as_well() -> None:
    async with scripted_provider() as provider:
        base = "ws" + provider.url.removeprefix("http") + "/v1/"
        options = NavaiOptions.from_env({"OPENAI_API_KEY": "sk-a", "OPENAI_BASE_URL": base})
        assert (await create_client_secret(options))["value"] == "ek_test_123"


@pytest.mark.parametrize("received", ["9", "7201", "60.5", "1e3", "abc", "-5", "inf"])
def test_a_ttl_that_is_none_stops_the_start(received: str) -> None:
    with pytest.raises(ConfigError, match=f"clientSecretTtlSeconds must be between 10 and 7200. Received: {received}"):
        NavaiOptions.from_env({"OPENAI_API_KEY": "sk-a", "OPENAI_REALTIME_CLIENT_SECRET_TTL": received})


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"model": 5}, "model"),
        ({"voice": {}}, "voice"),
        ({"instructions": ["x"]}, "instructions"),
        ({"language": True}, "language"),
        ({"voiceAccent": 1.5}, "voiceAccent"),
        ({"voiceTone": []}, "voiceTone"),
        ({"apiKey": 7}, "apiKey"),
    ],
)
async def test_a_field_of_the_wrong_type_is_named(body: dict[str, object], field: str) -> None:
    async with contract_client() as harness:
        status, answer = await harness.post(SECRET_PATH, body)
        assert (status, answer["field"]) == (400, field)
        assert field in answer["error"]
        assert not harness.provider.seen


@pytest.mark.parametrize(
    ("raw", "status"),
    [(b"{bad", 400), (b"[1]", 400), (b'"x"', 400), (b"\xff", 400), (b"[" * 50_000, 400), (b" " * 200_000, 413)],
)
async def test_a_body_that_is_none_is_refused(raw: bytes, status: int) -> None:
    async with contract_client() as harness:
        code, answer, _ = await harness.call(
            "POST", SECRET_PATH, data=raw, headers={"Content-Type": "application/json"}
        )
        assert code == status
        assert isinstance(answer["error"], str)
        assert not harness.provider.seen


async def test_what_a_foreign_page_could_make_a_browser_send_is_refused() -> None:
    async with contract_client() as harness:
        form = {"headers": {"Content-Type": "text/plain"}, "data": b"{}"}
        status, answer, _ = await harness.call("POST", SECRET_PATH, **form)
        assert (status, answer["field"]) == (400, "Content-Type")
        form["headers"] = {"Content-Type": "text/plain", "Origin": "https://evil.example"}
        assert (await harness.call("POST", SECRET_PATH, **form))[0] == 403
        form["headers"] = {"Content-Type": "text/plain", "Origin": "http://localhost:5173"}
        assert (await harness.call("POST", SECRET_PATH, **form))[0] == 200
        assert len(harness.provider.seen) == 1


async def test_other_methods_are_405_as_json() -> None:
    async with contract_client() as harness:
        status, answer, headers = await harness.call("GET", SECRET_PATH)
        assert (status, headers["Allow"], set(answer)) == (405, "POST", {"error"})


# -- keys -------------------------------------------------------------------------------------------------------------


async def test_a_key_of_the_request_is_refused_while_the_backend_has_one() -> None:
    async with contract_client() as harness:
        status, answer = await harness.post(SECRET_PATH, {"apiKey": REQUEST_KEY})
        assert (status, "allowApiKeyFromRequest" in answer["error"]) == (403, True)
        assert not harness.provider.seen


async def test_the_backends_key_wins_where_both_are_allowed() -> None:
    async with contract_client({"NAVAI_ALLOW_FRONTEND_API_KEY": "true"}) as harness:
        assert (await harness.post(SECRET_PATH, {"apiKey": REQUEST_KEY}))[0] == 200
        assert harness.provider.last.headers["authorization"] == f"Bearer {BACKEND_KEY}"


async def test_without_a_backend_key_the_request_brings_its_own() -> None:
    async with contract_client({"OPENAI_API_KEY": ""}) as harness:
        status, answer = await harness.post(SECRET_PATH)
        assert (status, answer["error"]) == (
            503,
            "Missing API key. Configure openaiApiKey or send apiKey in request.",
        )
        assert (await harness.post(SECRET_PATH, {"apiKey": REQUEST_KEY}))[0] == 200
        assert harness.provider.last.headers["authorization"] == f"Bearer {REQUEST_KEY}"


async def test_a_key_that_no_header_can_hold_is_refused_and_not_repeated() -> None:
    async with contract_client({"OPENAI_API_KEY": ""}) as harness:
        status, answer = await harness.post(SECRET_PATH, {"apiKey": "sk-a\r\nX-Evil: 1"})
        assert (status, answer["field"]) == (400, "apiKey")
        assert "Evil" not in str(answer)


# -- quota ------------------------------------------------------------------------------------------------------------


async def test_too_many_secrets_are_a_429_that_says_when() -> None:
    async with contract_client(limits_provider_secrets_per_minute=2) as harness:
        assert [(await harness.post(SECRET_PATH))[0] for _ in range(2)] == [200, 200]
        status, answer, headers = await harness.call("POST", SECRET_PATH, {})
        assert status == 429
        assert 1 <= int(headers["Retry-After"]) <= 30
        assert "RELAY_MINTS_PER_MINUTE" in answer["error"]
        assert len(harness.provider.seen) == 2


async def test_the_quota_is_on_by_default_and_what_is_refused_anyway_costs_none() -> None:
    async with contract_client() as harness:
        for _ in range(40):
            assert (await harness.post(SECRET_PATH, {"model": 5}))[0] == 400
            assert (await harness.post(SECRET_PATH, {"apiKey": REQUEST_KEY}))[0] == 403
        statuses = [(await harness.post(SECRET_PATH))[0] for _ in range(32)]
        assert (statuses.count(200), statuses.count(429)) == (30, 2)


# -- what OpenAI can do -----------------------------------------------------------------------------------------------

FAILURES = [
    (
        ScriptedResponse(status=401, json={"error": {"code": "invalid_api_key", "message": BACKEND_KEY}}),
        502,
        "(401): invalid",
    ),
    (ScriptedResponse(status=403, json={"error": {"code": "model_not_allowed"}}), 502, "(403): model_not_allowed"),
    (ScriptedResponse(status=404, json={"error": {"code": None, "type": "not_found"}}), 502, "(404): not_found"),
    (ScriptedResponse(status=429, json={"error": {"code": "rate_limit_exceeded"}}), 502, "(429): rate_limit_exceeded"),
    (ScriptedResponse(status=500, body=b"<html>oops sk-live-key</html>"), 502, "failed (500)"),
    (ScriptedResponse(status=503, json={"error": "plain"}), 502, "failed (503)"),
    (ScriptedResponse(status=302, headers={"Location": "https://evil.example"}, body=b""), 502, "redirects"),
    (ScriptedResponse(body=b"not json"), 502, "not a JSON object"),
    (ScriptedResponse(body=b"[]"), 502, "not a JSON object"),
    (ScriptedResponse(body=b"[" * 100_000), 502, "not a JSON object"),
    (ScriptedResponse(body=b""), 502, "not a JSON object"),
    (ScriptedResponse(body=b"x" * 10_000_000), 502, "larger than 1024 KiB"),
    (ScriptedResponse(status=500, body=b"x" * 10_000_000), 502, "failed (500)"),
    (ScriptedResponse(hang_up=True), 502, "connection was lost"),
    (ScriptedResponse(cut_after=5, body=b'{"value": "ek_1"}'), 502, "connection was lost"),
    (ScriptedResponse(status=400, json={"error": {"code": BACKEND_KEY}}), 502, "failed (400)"),
]


@pytest.mark.parametrize(("script", "status", "text"), FAILURES, ids=lambda value: str(value)[:60])
async def test_every_failure_is_told_without_key_or_raw_body(
    script: ScriptedResponse, status: int, text: str, caplog
) -> None:
    caplog.set_level(logging.DEBUG)
    async with contract_client() as harness:
        harness.provider.script = script
        code, answer = await harness.post(SECRET_PATH)
        assert (code, set(answer)) == (status, {"error"})
        assert answer["error"].startswith("OpenAI client_secrets failed")
        assert text in answer["error"]
        assert len(harness.provider.seen) == 1, "what may have been answered is not sent twice"
        told = answer["error"] + caplog.text
        assert BACKEND_KEY not in told
        assert "oops" not in told
        harness.provider.script = ScriptedResponse()
        assert (await harness.post(SECRET_PATH))[0] == 200


async def test_a_slow_openai_is_a_504() -> None:
    async with contract_client(timeout_s=0.2) as harness:
        harness.provider.script = ScriptedResponse(hang=True)
        status, answer = await harness.post(SECRET_PATH)
        assert (status, answer["error"]) == (504, "OpenAI client_secrets failed: no response within 0.2 s.")


async def test_an_answer_that_never_ends_is_a_504() -> None:
    async with contract_client(timeout_s=0.3) as harness:
        chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        chunks.put_nowait(b'{"value":')
        harness.provider.script = ScriptedResponse(chunks=chunks)
        assert (await harness.post(SECRET_PATH))[0] == 504
        chunks.put_nowait(None)


async def test_the_wait_that_openai_asks_for_is_passed_on() -> None:
    async with contract_client() as harness:
        harness.provider.script = ScriptedResponse(status=429, headers={"Retry-After": "7"}, json={})
        status, _, headers = await harness.call("POST", SECRET_PATH, {})
        assert (status, headers["Retry-After"]) == (502, "7")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({}, {}),
        ({"value": None, "expires_at": "soon"}, {"value": None, "expires_at": "soon"}),
        ({"expires_at": 5, "speech": {"provider": "evil"}, "session": {}}, {"expires_at": 5}),
    ],
)
async def test_what_is_missing_upstream_is_missing_here(answer: dict[str, object], expected: dict[str, object]) -> None:
    async with contract_client() as harness:
        harness.provider.script = ScriptedResponse(json=answer)
        assert await harness.post(SECRET_PATH) == (200, expected | {"speech": {"provider": "openai"}})


# -- the library ------------------------------------------------------------------------------------------------------


def options_for(provider: ScriptedProvider, timeout_s: float = 15.0, **env: str) -> NavaiOptions:
    return NavaiOptions.from_env(navai_env(provider) | env, upstream_timeout_s=timeout_s)


async def test_a_secret_in_one_call() -> None:
    async with scripted_provider() as provider:
        secret = await create_client_secret(options_for(provider), ClientSecretRequest(language="Spanish"))
        assert secret["value"] == "ek_test_123"
        assert provider.last.body["session"]["instructions"].endswith("Always reply in Spanish.")
        with pytest.raises(AccessDenied):
            await create_client_secret(options_for(provider), ClientSecretRequest(api_key="sk-x"))
        with pytest.raises(NotConfigured):
            await create_client_secret(options_for(provider, OPENAI_API_KEY=""))
        provider.script = ScriptedResponse(status=401, json={"error": {"code": "invalid_api_key"}})
        with pytest.raises(UpstreamError) as refused:
            await create_client_secret(options_for(provider))
        assert (refused.value.upstream_status, refused.value.code) == (401, "invalid_api_key")
        provider.script = ScriptedResponse(hang=True)
        with pytest.raises(UpstreamTimeout):
            await create_client_secret(options_for(provider, timeout_s=0.1))


async def test_nobody_at_the_address_is_tried_once_more_then_told() -> None:
    async with scripted_provider() as provider:
        options = options_for(provider)
    with pytest.raises(UpstreamError, match=r"127\.0\.0\.1 cannot be reached") as error:
        await create_client_secret(options)
    assert error.value.http_status == 502


async def test_the_routes_in_anybodys_application() -> None:
    async with scripted_provider() as provider:
        app = web.Application()
        add_routes(app, options_for(provider), ToolRegistry())
        app.router.add_post("/mine", client_secret_handler(options_for(provider, NAVAI_ALLOW_FRONTEND_API_KEY="")))
        async with serve_app(app) as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            for path in (SECRET_PATH, "/mine"):
                async with http.post(path, json={}) as answer:
                    assert (answer.status, (await answer.json())["value"]) == (200, "ek_test_123")
                async with http.post(path, json={"apiKey": "sk-x"}) as answer:
                    assert answer.status == 403
                async with http.post(path, data=b"{}", headers={"Content-Type": "text/plain"}) as answer:
                    assert answer.status == 400
                own = {"Content-Type": "text/plain", "Origin": f"http://127.0.0.1:{port}"}
                async with http.post(path, data=b"{}", headers=own) as answer:
                    assert answer.status == 200
            statuses = []
            for _ in range(30):
                async with http.post("/mine", json={}) as answer:
                    statuses.append(answer.status)
            assert (statuses.count(200), statuses.count(429), answer.headers["Retry-After"]) == (28, 2, "2")


async def test_paths_are_the_options_business_there() -> None:
    async with scripted_provider() as provider:
        app = web.Application()
        options = NavaiOptions.from_env(navai_env(provider), paths=NavaiPaths(client_secret="/a/secret"))
        add_routes(app, options, ToolRegistry())
        async with serve_app(app) as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            async with http.post("/a/secret", json={}) as answer:
                assert answer.status == 200
            async with http.post(SECRET_PATH, json={}) as answer:
                assert answer.status == 404
