"""Settings in Python: their keywords, for people and for mypy, and the names in messages."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import relay
from relay.config import (
    AccessSettings,
    AzureSettings,
    LimitSettings,
    ServerSettings,
    SessionSettings,
    Settings,
    TtsSettings,
    UpstreamSettings,
)
from relay.config.environment import Environment
from relay.config.settings import GroupOverrides
from relay.errors import ConfigError

ROOT = Path(__file__).parents[2]


def test_settings_in_python_see_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1")
    assert Settings(session=SessionSettings(voice="cedar")).server == ServerSettings()
    assert Settings().environment == Environment()


def test_fields_that_are_set_in_a_group_win_and_the_others_are_read() -> None:
    environment = Environment({"PORT": "1", "HOST": "127.0.0.2", "RELAY_TURN": "manual"})
    settings = Settings.load(environment, server=ServerSettings(port=9000))
    assert (settings.server.port, settings.server.host, settings.turns.detection) == (9000, "127.0.0.2", "manual")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ServerSettings(prot=1), "server.prot: is not a setting; did you mean server.port?"),
        (lambda: Settings(srever=1), "srever: is not a setting; did you mean server?"),
        (lambda: Settings(port=1), r"port: is not a group .* did you mean server=ServerSettings(port=...)?"),
        (lambda: Settings.load(Environment(), prot=1), "prot: is not a setting; known are upstream, openai"),
        (lambda: Settings.load(Environment(), port=1), "did you mean server=ServerSettings(port=...)?"),
    ],
)
def test_an_unknown_keyword_is_an_error_that_names_the_nearest_one(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message).replace(r"\.\*", ".*")):
        make()


def test_all_mistakes_of_a_group_are_one_report_by_their_paths() -> None:
    with pytest.raises(ConfigError) as error:
        ServerSettings(port="many", hots="a")
    assert str(error.value).splitlines() == [
        "invalid settings:",
        "  server.hots: is not a setting; did you mean server.host?",
        "  server.port: must be a valid integer",
    ]


def test_what_does_not_fit_together_is_named_as_it_was_given() -> None:
    public = ServerSettings(host="0.0.0.0")
    with pytest.raises(ConfigError, match=r"server\.host=0\.0\.0\.0 .* Set access\.api_keys .* access\.open=1"):
        Settings(server=public)
    with pytest.raises(ConfigError, match=r"server\.host=0\.0\.0\.0 .* Set RELAY_API_KEYS .* RELAY_OPEN=1"):
        Settings.load(Environment(), server=public)
    with pytest.raises(ConfigError, match=r"--host=0\.0\.0\.0 .* Set RELAY_API_KEYS"):
        Settings.load(Environment(options={"HOST": ("--host", "0.0.0.0")}))
    assert Settings(server=public, access=AccessSettings(api_keys=("k" * 16,)))


def test_a_group_may_be_completed_by_the_environment() -> None:
    """What does not fit together is found where the groups are, not where one of them is made."""
    tts = TtsSettings(provider="elevenlabs", voice_id="v")
    assert Settings.load(Environment({"ELEVENLABS_API_KEY": "k"}), tts=tts).tts.api_key == "k"
    limits = LimitSettings(pong_timeout_s=25)
    assert Settings.load(Environment({"RELAY_PING_INTERVAL_S": "30"}), limits=limits).limits.ping_interval_s == 30
    with pytest.raises(ConfigError, match=r"limits\.pong_timeout_s may not be longer than RELAY_PING_INTERVAL_S"):
        Settings.load(Environment({}), limits=limits)
    with pytest.raises(ConfigError, match=r"limits\.pong_timeout_s may not be longer than limits\.ping_interval_s"):
        Settings(limits=limits)


def test_an_alias_is_named_where_the_value_came_by_it() -> None:
    with pytest.raises(ConfigError, match="NAVAI_CORS_ORIGIN: 'nowhere' is not an origin"):
        Settings.load(Environment({"NAVAI_CORS_ORIGIN": "nowhere"}))


def test_warnings_name_settings_as_they_were_given() -> None:
    settings = Settings(azure=AzureSettings(api_key="azure-key"))
    assert settings.warnings() == [
        "The Azure configuration is incomplete and not used: set azure.endpoint, azure.deployment"
    ]


def test_no_key_is_in_a_repr() -> None:
    settings = Settings(upstream=UpstreamSettings(target="wss://host/v1", key="a-secret-key"))
    assert "a-secret-key" not in f"{settings!r} {settings} {settings.upstream!r}"
    hidden = {
        name for group in Settings.groups().values() for name in group.model_fields if name.endswith(("key", "keys"))
    }
    assert hidden == {"key", "api_key", "api_keys", "admin_keys", "ticket_keys", "tls_key", "allow_frontend_api_key"}
    assert Settings.secret_variables() == (
        "RELAY_UPSTREAM_KEY",
        "OPENAI_API_KEY",
        "AZURE_OPENAI_API_KEY",
        "ELEVENLABS_API_KEY",
        "RELAY_API_KEYS",
        "RELAY_ADMIN_KEYS",
        "RELAY_TICKET_KEYS",
    )


def test_settings_do_not_change() -> None:
    with pytest.raises(Exception, match="frozen"):
        Settings().server.port = 1


def test_the_keywords_of_load_are_those_of_settings() -> None:
    assert {name: model.__name__ for name, model in GroupOverrides.__annotations__.items()} == {
        name: group.__name__ for name, group in Settings.groups().items()
    }
    assert all(name == group.GROUP for name, group in Settings.groups().items())


def test_the_package_exports_settings_and_stays_free_of_pydantic() -> None:
    assert {"NavaiOptions", "Settings", "add_routes", "create_app"} <= {*relay.__all__}
    assert relay.Settings is Settings
    program = (
        "import sys, relay; assert 'pydantic' not in sys.modules; relay.Settings, relay.NavaiOptions, relay.add_routes"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


RIGHT = """
from pathlib import Path
from relay import NavaiOptions, Settings, add_routes, create_app
from relay.config import AccessSettings, AzureSettings, RecordingSettings, ServerSettings, TtsSettings, UpstreamSettings

async def token() -> str:
    return "token"

settings = Settings(
    upstream=UpstreamSettings(target="azure"),
    azure=AzureSettings(endpoint="https://r.example.com", deployment="d", token_provider=token),
    tts=TtsSettings(provider="elevenlabs", api_key="key", voice_id="voice", stability=0.5),
    access=AccessSettings(api_keys=("k" * 16,), open=False),
    recording=RecordingSettings(mode="consent", dir=Path("calls"), max_days=None),
)
loaded: Settings = Settings.load(server=ServerSettings(port=9000, tls_cert=None))
port: int = loaded.server.port
key: str | None = loaded.openai.api_key
app = create_app(settings)
add_routes(app, NavaiOptions(openai_api_key="key"))
"""
WRONG = {
    'Settings(port=9000)': 'Unexpected keyword argument "port" for "Settings"',
    'Settings(srever=ServerSettings())': 'Unexpected keyword argument "srever" for "Settings"',
    'Settings(server=AccessSettings())': 'Argument "server" to "Settings" has incompatible type "AccessSettings"',
    'Settings.load(prot=9000)': 'Unexpected keyword argument "prot" for "load" of "Settings"',
    'Settings.load(server=9000)': 'Argument "server" to "load" of "Settings" has incompatible type "int"',
    'ServerSettings(prot=9000)': 'Unexpected keyword argument "prot" for "ServerSettings"',
    'ServerSettings(port="many")': 'Argument "port" to "ServerSettings" has incompatible type "str"',
    'AccessSettings(local="perhaps")': 'Argument "local" to "AccessSettings" has incompatible type',
    'AccessSettings(api_keys="one")': 'Argument "api_keys" to "AccessSettings" has incompatible type "str"',
    'NavaiOptions(openai_key="k")': 'Unexpected keyword argument "openai_key" for "NavaiOptions"',
    'Settings().server.prot': '"ServerSettings" has no attribute "prot"',
    'Settings().server.port = 1': 'Property "port" defined in "ServerSettings" is read-only',
    'Settings().server = ServerSettings()': 'Property "server" defined in "Settings" is read-only',
}  # fmt: skip


def test_mypy_checks_the_keywords_in_a_users_project(tmp_path: Path) -> None:
    """With the package as it is installed: found on the path, typed by its `py.typed`."""
    assert (ROOT / "relay" / "py.typed").exists()
    (tmp_path / "right.py").write_text(RIGHT)
    header = "from relay import NavaiOptions, Settings\nfrom relay.config import AccessSettings, ServerSettings\n"
    (tmp_path / "wrong.py").write_text(header + "\n".join(WRONG) + "\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "right.py", "wrong.py"]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    errors = done.stdout.splitlines()
    by_line = {number: [line for line in errors if line.startswith(f"wrong.py:{number}:")] for number in range(3, 99)}
    for number, (call, message) in enumerate(WRONG.items(), start=3):
        assert any(message in line for line in by_line[number]), (call, done.stdout)
    assert not [line for line in errors if not line.startswith("wrong.py:")], done.stdout
