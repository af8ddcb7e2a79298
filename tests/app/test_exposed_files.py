"""Files that others can get at: which the start warns of, and with which command."""

from pathlib import Path

import pytest

from relay.app.secret_values import collect_secrets, exposed_file_warnings
from relay.app.toolbox import load_mcp_servers
from relay.config.settings import Settings
from relay.session.common.known_secrets import KnownSecrets
from tests.support.relay_server import groups_of

KEY = "sk-0123456789abcdef"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "RELAY_API_KEYS", "RELAY_UPSTREAM", "RELAY_MCP_SERVERS", "RELAY_POLICIES"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write(name: str, text: str, mode: int) -> None:
    Path(name).write_text(text)
    Path(name).chmod(mode)


def warnings(*, records: bool = False, **overrides: object) -> list[str]:
    settings = Settings.load(**groups_of(**overrides))
    known = KnownSecrets(collect_secrets(settings, load_mcp_servers(settings)))
    return exposed_file_warnings(settings, known, records=records)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_an_env_file_with_a_key(mode: int) -> None:
    write(".env", f"OPENAI_API_KEY={KEY}\n", mode)
    assert warnings() == [
        f".env is accessible to other users of this machine (mode {mode:04o}) and contains keys. Run: chmod 600 .env"
    ]
    Path(".env").chmod(0o600)
    assert warnings() == []


@pytest.mark.parametrize(
    ("line", "holds_a_key"),
    [
        ("OPENAI_API_KEY=", False),
        ("RELAY_RECORD=on", False),
        ("OPENAI_REALTIME_CLIENT_SECRET_TTL=600", False),
        ("NAVAI_ALLOW_FRONTEND_API_KEY=true", False),
        ("RELAY_TICKET_KEYS=0123456789abcdef0123", True),
        ("ELEVENLABS_API_KEY=short", True),
        ("RELAY_UPSTREAM=wss://me:secret@example.com/v1", True),
        ("HTTPS_PROXY=http://me:secret@proxy:3128", True),
    ],
)
def test_only_an_env_file_with_a_key_is_told_of(line: str, holds_a_key: bool) -> None:
    write(".env", f"{line}\n", 0o644)
    assert bool(warnings()) is holds_a_key


def test_a_key_that_the_environment_replaces_still_stands_there(monkeypatch: pytest.MonkeyPatch) -> None:
    write(".env", f"OPENAI_API_KEY={KEY}\n", 0o644)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another-0123456789")
    assert len(warnings()) == 1


def test_files_that_settings_name_count_when_they_hold_a_key() -> None:
    server = '{"mcpServers": {"a": {"url": "https://a.example/mcp", "headers": {"Authorization": "Bearer %s"}}}}'
    write(".env", f"OPENAI_API_KEY={KEY}\nTICKETS_TOKEN=tok-0123456789abcdef\n", 0o600)
    write("my servers.json", server % "tok-0123456789abcdef", 0o644)
    write("policies.toml", f"# the key of the kiosk: {KEY}\n[policies.kiosk]\n", 0o644)
    warning = warnings(tools_mcp_servers="my servers.json", access_policies="policies.toml")
    assert [one.rpartition("Run: ")[2] for one in warning] == ["chmod 600 policies.toml", "chmod 600 'my servers.json'"]
    write("my servers.json", server % "${TICKETS_TOKEN}", 0o644)  # the token stands in the environment
    write("policies.toml", "[policies.kiosk]\n", 0o644)
    assert warnings(tools_mcp_servers="my servers.json", access_policies="policies.toml") == []


def test_the_key_of_tls_may_have_a_group() -> None:
    write("key.pem", "-----BEGIN PRIVATE KEY-----\n", 0o640)
    assert warnings(server_tls_cert="cert.pem", server_tls_key="key.pem") == []
    Path("key.pem").chmod(0o644)
    [warning] = warnings(server_tls_cert="cert.pem", server_tls_key="key.pem")
    assert warning.endswith("Run: chmod 600 key.pem")


def test_the_folder_of_recordings() -> None:
    Path("recordings").mkdir(mode=0o755)
    assert warnings() == []  # nothing is recorded
    [warning] = warnings(records=True)
    assert "recordings is accessible to other users of this machine (mode 0755). Run: chmod 700 recordings" in warning
    Path("recordings").chmod(0o700)
    assert warnings(records=True) == []
