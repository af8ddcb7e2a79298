"""Which values of the configuration are secrets, and that those fetched at run time become known."""

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from relay.app.context import KNOWN_SECRETS, UPSTREAM, install
from relay.app.secret_values import collect_secrets, url_secrets
from relay.config.navai_options import NavaiOptions
from relay.session.common.redact import MASK
from relay.toolkit.mcp.config import read_mcp_config
from relay.toolkit.registry import ToolRegistry
from tests.support.relay_server import settings_for


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        ("wss://host/v1", set()),
        ("", set()),
        ("ws://[", set()),
        ("https://user@host/", set()),
        ("https://user:p%40ss@host/", {"p%40ss", "p@ss", "dXNlcjpwQHNz"}),
        ("wss://host/v1?api-key=abc%2F1&model=m&access_token=t", {"abc/1", "t"}),
    ],
)
def test_what_a_url_carries(url: str, secrets: set[str]) -> None:
    assert set(url_secrets(url)) == secrets


def test_all_keys_of_the_settings() -> None:
    keys: dict[str, Any] = {
        "access_api_keys": ("api-key-0123456789",),
        "access_admin_keys": ("admin-key-0123456789",),
        "access_ticket_keys": ("ticket-key-0123456789",),
        "upstream_key": "upstream-key",
        "openai_api_key": "openai-key",
        "azure_api_key": "azure-key",
    }
    settings = settings_for("wss://u:url-password@host/v1?key=url-key", **keys)
    secrets = set(collect_secrets(settings))
    assert secrets >= {"upstream-key", "openai-key", "azure-key", "url-password", "url-key"}
    assert secrets >= {"api-key-0123456789", "admin-key-0123456789", "ticket-key-0123456789"}


def test_the_environment_of_the_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from relay.config.settings import Settings

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ELEVENLABS_API_KEY", "eleven-key-1 ")
    monkeypatch.setenv("https_proxy", "http://u:proxy-password@proxy:3128")
    assert set(collect_secrets(Settings.load())) >= {"eleven-key-1", "proxy-password"}


def test_what_an_mcp_server_is_given(tmp_path: Path) -> None:
    entries = {
        "a": {"command": "x", "env": {"ROOT": "/data/files", "DSN": "db:${DB}", "API_KEY": "literal", "H": "${HOME}"}},
        "b": {"url": "https://u:pw@h/?token=q", "headers": {"Authorization": "Bearer ${TOKEN}", "X-Api-Key": "k"}},
    }
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps({"mcpServers": entries}))
    servers = read_mcp_config(path, {"DB": "db-password", "TOKEN": "far-token", "HOME": "/home/user"})
    assert set(servers[0].secrets) == {"db-password", "literal"}
    assert set(servers[1].secrets) == {"far-token", "Bearer far-token", "Bearer", "k"}
    assert {"pw", "q"} <= set(collect_secrets(settings_for(), servers))


async def test_a_fetched_token_is_known_from_its_first_use() -> None:
    settings = settings_for(
        "azure",
        azure_endpoint="https://r.example.com",
        azure_deployment="d",
        azure_token_provider=lambda: "fetched-token-1",
    )
    app = web.Application()
    install(app, settings, ToolRegistry(), NavaiOptions.from_env({}))
    credential, known = app[UPSTREAM].credential, app[KNOWN_SECRETS]
    assert credential is not None
    assert known.redact("fetched-token-1") == "fetched-token-1"
    await credential.headers()
    assert known.redact("fetched-token-1") == MASK
