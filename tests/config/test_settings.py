"""Settings: what the environment says, every mistake at once, and where the model is."""

import os
from pathlib import Path

import pytest

from relay.config.environment import Environment
from relay.config.settings import Settings
from relay.errors import ConfigError
from relay.upstreams.registry import AZURE_PREVIEW, OPENAI, OPENAI_BETA, UPSTREAM_DIALECTS, UpstreamDialect
from tests.support.relay_server import groups_of


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    """No settings of whoever runs the tests."""
    ours = ("NAVAI_", "ELEVENLABS_", "OPENAI_", "AZURE_OPENAI_", "RELAY_", "HOST", "PORT", "TLS_")
    for name in [name for name in os.environ if name.startswith(ours)]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def loaded(**variables: str) -> Settings:
    """The settings of an environment."""
    return Settings.load(Environment(variables))


def test_without_any_setting_the_local_engine_answers_on_loopback() -> None:
    settings = Settings.load()
    assert (settings.server.host, settings.server.port, settings.resolve_upstream().kind) == (
        "127.0.0.1",
        8080,
        "local",
    )
    assert settings.session_config().transcription_model == "gpt-transcribe"


def test_a_dotenv_file_is_read_and_the_environment_wins(clean, tmp_path) -> None:
    (tmp_path / ".env").write_text("PORT=9001\nOPENAI_REALTIME_VOICE=cedar\n")
    clean.setenv("PORT", "9002")
    settings = Settings.load()
    assert (settings.server.port, settings.session.voice) == (9002, "cedar")


def test_an_empty_value_is_unset(clean) -> None:
    clean.setenv("PORT", "")
    clean.setenv("OPENAI_API_KEY", "")
    settings = Settings.load()
    assert (settings.server.port, settings.openai.api_key) == (8080, None)


def test_all_mistakes_are_told_at_once_by_their_names(clean) -> None:
    clean.setenv("PORT", "99999")
    clean.setenv("RELAY_TURN", "sometimes")
    clean.setenv("RELAY_UPSTREAM", "moon")
    with pytest.raises(ConfigError) as error:
        Settings.load()
    for name in ("PORT", "RELAY_TURN", "RELAY_UPSTREAM"):
        assert name in str(error.value)


def test_the_models_own_voice_is_no_voice_of_elevenlabs(clean) -> None:
    clean.setenv("OPENAI_REALTIME_VOICE", "elevenlabs:voice-1")
    with pytest.raises(ConfigError, match=r"OPENAI_REALTIME_VOICE.*NAVAI_TTS_PROVIDER"):
        Settings.load()


def test_a_mistake_in_a_secret_does_not_show_it(clean) -> None:
    clean.setenv("RELAY_API_KEYS", "short-secret")
    with pytest.raises(ConfigError) as error:
        Settings.load()
    assert "short-secret" not in str(error.value)
    clean.setenv("RELAY_API_KEYS", "long-enough-to-be-a-key")
    clean.setenv("OPENAI_API_KEY", "sk-secret-0123456789")
    assert "sk-secret" not in repr(Settings.load())
    assert "long-enough" not in repr(Settings.load())


def test_a_key_means_openai(clean) -> None:
    clean.setenv("OPENAI_API_KEY", "sk-x")
    upstream = Settings.load().resolve_upstream()
    assert (upstream.kind, upstream.url) == ("openai", "wss://api.openai.com/v1/realtime?model=gpt-realtime")


def test_openai_without_a_key_is_a_mistake(clean) -> None:
    clean.setenv("RELAY_UPSTREAM", "openai")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        Settings.load()


@pytest.mark.parametrize(
    ("url", "dialled"),
    [
        ("ws://model.lan", "ws://model.lan/v1/realtime?model=gpt-realtime"),
        ("wss://model.lan:99/v1", "wss://model.lan:99/v1/realtime?model=gpt-realtime"),
        ("ws://model.lan/custom/path", "ws://model.lan/custom/path?model=gpt-realtime"),
        ("wss://x.example/openai/v1/realtime?model=mine", "wss://x.example/openai/v1/realtime?model=mine"),
    ],
)
def test_a_url_wins_and_is_completed_where_it_is_short(clean, url, dialled) -> None:
    clean.setenv("OPENAI_API_KEY", "sk-x")
    clean.setenv("RELAY_UPSTREAM", url)
    upstream = Settings.load().resolve_upstream()
    assert (upstream.kind, upstream.url) == ("url", dialled)


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("wss://elsewhere.example/v1/realtime", None),
        ("wss://api.openai.com/v1/realtime", "sk-x"),
        ("ws://127.0.0.1:9000/v1/realtime", "sk-x"),
    ],
)
def test_the_openai_key_goes_to_its_own_host_and_to_this_machine_only(clean, url, sent) -> None:
    clean.setenv("OPENAI_API_KEY", "sk-x")
    clean.setenv("RELAY_UPSTREAM", url)
    key = Settings.load().resolve_upstream().key
    assert (key.get_secret_value() if key else None) == sent
    clean.setenv("RELAY_UPSTREAM_KEY", "its-own")
    assert Settings.load().resolve_upstream().key.get_secret_value() == "its-own"


def test_instructions_get_their_lines(clean) -> None:
    clean.setenv("OPENAI_REALTIME_INSTRUCTIONS", " Be brief. ")
    clean.setenv("OPENAI_REALTIME_LANGUAGE", "Spanish")
    clean.setenv("OPENAI_REALTIME_VOICE_ACCENT", "  ")
    clean.setenv("OPENAI_REALTIME_VOICE_TONE", "warm")
    config = Settings.load().session_config()
    assert config.full_instructions == "Be brief.\nAlways reply in Spanish.\nUse a warm tone while speaking."


def test_vad_numbers_and_off_switches_reach_the_session(clean) -> None:
    clean.setenv("RELAY_TURN", "semantic_vad")
    clean.setenv("RELAY_VAD_EAGERNESS", "low")
    clean.setenv("RELAY_TRANSCRIPTION_MODEL", "off")
    clean.setenv("RELAY_NOISE_REDUCTION", "far_field")
    config = Settings.load().session_config()
    assert (config.turn.kind, config.turn.eagerness) == ("semantic_vad", "low")
    assert (config.transcription_model, config.noise_reduction) == (None, "far_field")


def test_origins_come_under_both_names(clean) -> None:
    clean.setenv("NAVAI_CORS_ORIGIN", "https://a.example, https://b.example")
    assert Settings.load().access.allowed_origins == ("https://a.example", "https://b.example")
    clean.setenv("RELAY_ALLOWED_ORIGINS", "https://c.example/path")
    with pytest.raises(ConfigError, match="without a path"):
        Settings.load()


@pytest.mark.parametrize(
    ("model", "warned"),
    [("gpt-realtime", True), ("gpt-realtime-mini-2025-10-06", True), ("gpt-realtime-2.1", False), ("mine", False)],
)
def test_a_model_that_is_shut_down_soon_is_warned_about(clean, model, warned) -> None:
    clean.setenv("OPENAI_API_KEY", "sk-x")
    clean.setenv("OPENAI_REALTIME_MODEL", model)
    assert bool(Settings.load().warnings()) is warned


@pytest.mark.parametrize(("value", "warned"), [("5", 1), ("0", 1), ("often", 1), ("", 0), (None, 0)])
def test_a_setting_without_effect_is_warned_of_where_it_has_a_value(clean, value, warned) -> None:
    if value is not None:
        clean.setenv("RELAY_TICK_MS", value)
    found = [one for one in Settings.load().warnings() if "RELAY_TICK_MS" in one]
    assert found == ["RELAY_TICK_MS has no effect any more and can be removed"] * warned


def test_a_setting_without_effect_is_warned_of_in_a_dotenv_file_too(tmp_path) -> None:
    (tmp_path / ".env").write_text("RELAY_TICK_MS=5\n")
    assert Settings.load().warnings() == ["RELAY_TICK_MS has no effect any more and can be removed"]


@pytest.mark.parametrize("url", ["ws://host:99999", "ws://[", "https://h/v1?api-key=SUPERSECRET", "ws://"])
def test_an_upstream_that_is_no_url_is_told_without_its_secrets(clean, url) -> None:
    clean.setenv("RELAY_UPSTREAM", url)
    with pytest.raises(ConfigError, match="RELAY_UPSTREAM") as error:
        Settings.load()
    assert "SUPERSECRET" not in str(error.value)


# -- Azure ------------------------------------------------------------------------------------------------------------

AZURE = {
    "AZURE_OPENAI_ENDPOINT": "https://res.openai.azure.com/openai/v1/",
    "AZURE_OPENAI_DEPLOYMENT": "gpt-realtime-dep",
    "AZURE_OPENAI_API_KEY": "azure-key-0123456789",
}


def set_all(clean, values: dict[str, str]) -> None:
    for name, value in values.items():
        clean.setenv(name, value)


def test_azure_is_the_upstream_when_it_is_all_there_is(clean) -> None:
    set_all(clean, AZURE)
    for chosen in ("auto", "azure"):
        upstream = Settings.load(**groups_of(upstream_target=chosen)).resolve_upstream()
        assert (upstream.kind, upstream.label) == ("azure", "azure (res.openai.azure.com)")
        assert upstream.url == "wss://res.openai.azure.com/openai/v1/realtime?model=gpt-realtime-dep"
    assert Settings.load(**groups_of(upstream_target="local")).resolve_upstream().kind == "local"
    clean.setenv("OPENAI_API_KEY", "sk-a")
    assert Settings.load().resolve_upstream().kind == "openai"
    assert "azure-key" not in repr(Settings.load())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict.fromkeys(AZURE, ""), "needs AZURE_OPENAI_ENDPOINT, AZURE_OPENAI_DEPLOYMENT, AZURE_OPENAI_API_KEY"),
        ({"AZURE_OPENAI_API_KEY": ""}, "needs AZURE_OPENAI_API_KEY .or RELAY_AZURE_TOKEN"),
        ({"RELAY_AZURE_TOKEN": "my.tokens:token"}, "Azure takes one; unset the other"),
        ({"AZURE_OPENAI_API_VERSION": "2025-04-01-preview"}, "ends with /openai/v1, the GA protocol"),
        ({"AZURE_OPENAI_ENDPOINT": "res.openai.azure.com"}, "AZURE_OPENAI_ENDPOINT: is not a URL; write it like https"),
        ({"RELAY_AZURE_TOKEN": "my.tokens"}, "RELAY_AZURE_TOKEN: must name a callable"),
        ({"RELAY_AZURE_PREFIX": "no path"}, "RELAY_AZURE_PREFIX: 'no path' is not a path"),
    ],
)
def test_mixes_that_cannot_work_are_refused_with_the_fix(clean, changes: dict[str, str], said: str) -> None:
    set_all(clean, AZURE | changes)
    with pytest.raises(ConfigError, match=said):
        Settings.load(**groups_of(upstream_target="azure"))


def test_all_mixes_are_told_at_once(clean) -> None:
    set_all(clean, AZURE | {"RELAY_AZURE_TOKEN": "a:b", "AZURE_OPENAI_API_VERSION": "v", "HOST": "0.0.0.0"})
    with pytest.raises(ConfigError) as error:
        Settings.load(**groups_of(upstream_target="azure"))
    lines = str(error.value).splitlines()[1:]
    assert len(lines) == 3
    assert all(line.startswith("  ") for line in lines)


def test_the_address_of_the_preview_protocol_is_spoken_to_in_its_dialect(clean) -> None:
    address = "wss://res.openai.azure.com/openai/realtime?api-version=v&deployment=d"
    clean.setenv("RELAY_UPSTREAM", address)
    upstream = Settings.load().resolve_upstream()
    assert (upstream.url, upstream.dialect) == (address, AZURE_PREVIEW)


@pytest.mark.parametrize(
    ("named", "dialect"), [("", OPENAI), ("Auto", OPENAI), ("openai", OPENAI), ("openai-beta", OPENAI_BETA)]
)
@pytest.mark.parametrize("upstream", ["wss://example.com", "local"])
def test_a_dialect_can_be_named(clean, upstream: str, named: str, dialect: UpstreamDialect) -> None:
    set_all(clean, {"RELAY_UPSTREAM": upstream, "RELAY_UPSTREAM_DIALECT": named})
    assert Settings.load().resolve_upstream().dialect is dialect


def test_a_dialect_that_is_named_wins_over_the_url(clean) -> None:
    address = "wss://res.openai.azure.com/openai/realtime?api-version=v&deployment=d"
    set_all(clean, {"RELAY_UPSTREAM": address, "RELAY_UPSTREAM_DIALECT": "openai"})
    assert Settings.load().resolve_upstream().dialect is OPENAI


@pytest.mark.parametrize(
    ("path", "named", "setting"),
    [
        ("openai/realtime?api-version=v&deployment=d", "auto", "AZURE_OPENAI_API_VERSION"),
        ("openai/v1/realtime?model=d", "azure-preview", "RELAY_UPSTREAM_DIALECT"),
    ],
)
def test_the_warning_of_the_preview_names_the_setting_that_chose_it(clean, path: str, named: str, setting: str) -> None:
    address = f"wss://res.openai.azure.com/{path}"
    set_all(clean, {"RELAY_UPSTREAM": address, "RELAY_UPSTREAM_DIALECT": named})
    [warning] = [text for text in Settings.load().warnings() if "deprecated" in text]
    assert f"unset {setting}, or" in warning


def test_an_unknown_dialect_is_refused_with_those_that_are_known(clean) -> None:
    clean.setenv("RELAY_UPSTREAM_DIALECT", "morse")
    known = ", ".join(("auto", *UPSTREAM_DIALECTS))
    with pytest.raises(ConfigError, match=f"RELAY_UPSTREAM_DIALECT: 'morse' is not one of {known}"):
        Settings.load()


@pytest.mark.parametrize(
    ("url", "is_fixed"),
    [
        ("wss://example.com", False),
        ("wss://example.com/v1/realtime?user=a", False),
        ("wss://example.com/v1/realtime?model=m", True),
        ("wss://example.com/openai/realtime?api-version=v&deployment=d", True),
    ],
)
def test_a_model_in_the_upstreams_url_is_there_to_stay(clean, url: str, is_fixed: bool) -> None:
    assert Settings.load(**groups_of(upstream_target=url)).resolve_upstream().has_fixed_model is is_fixed
    set_all(clean, AZURE)
    assert Settings.load(**groups_of(upstream_target="azure")).resolve_upstream().has_fixed_model is True


def test_a_preview_resource_is_the_upstream_and_is_warned_about(clean) -> None:
    set_all(clean, AZURE | {"AZURE_OPENAI_API_VERSION": "v", "AZURE_OPENAI_ENDPOINT": "https://res.openai.azure.com"})
    settings = Settings.load()
    upstream = settings.resolve_upstream()
    assert (upstream.kind, upstream.dialect) == ("azure", AZURE_PREVIEW)
    assert (
        upstream.url
        == f"wss://res.openai.azure.com/openai/realtime?api-version=v&deployment={settings.azure.deployment}"
    )
    assert any("AZURE_OPENAI_API_VERSION" in warning for warning in settings.warnings())


def test_half_an_azure_is_warned_about(clean) -> None:
    clean.setenv("AZURE_OPENAI_API_KEY", "azure-key-0123456789")
    missing = "AZURE_OPENAI_ENDPOINT, AZURE_OPENAI_DEPLOYMENT"
    assert f"The Azure configuration is incomplete and not used: set {missing}" in Settings.load().warnings()


def test_a_callable_for_the_token_can_be_given_as_one(clean) -> None:
    set_all(clean, AZURE | {"AZURE_OPENAI_API_KEY": ""})
    settings = Settings.load(**groups_of(upstream_target="azure", azure_token_provider=lambda: "token"))
    assert callable(settings.azure.token_provider)


def test_the_mistakes_of_settings_and_navai_are_one_report(clean) -> None:
    set_all(
        clean,
        {
            "PORT": "99999",
            "RELAY_UPSTREAM": "moon",
            "OPENAI_REALTIME_CLIENT_SECRET_TTL": "5 minutes",
            "NAVAI_TTS_PROVIDER": "elevenlabs",
            "ELEVENLABS_BASE_URL": "somewhere",
        },
    )
    with pytest.raises(ConfigError) as error:
        Settings.load()
    report = str(error.value).splitlines()
    assert report[0] == "invalid settings:"
    assert report[1:] == [
        "  RELAY_UPSTREAM: 'moon' is not one of auto, openai, azure, local, or a ws:// or wss:// URL",
        "  OPENAI_REALTIME_CLIENT_SECRET_TTL: clientSecretTtlSeconds must be between 10 and 7200. Received: 5 minutes",
        "  PORT: must be less than or equal to 65535",
        "  ELEVENLABS_API_KEY: Missing elevenLabsApiKey in NavaiVoiceBackendOptions.",
        "  ELEVENLABS_VOICE_ID: Missing elevenLabsVoiceId in NavaiVoiceBackendOptions.",
        "  ELEVENLABS_BASE_URL: 'somewhere' is not a URL; write it like https://api.elevenlabs.io",
    ]
    for name in ("PORT", "RELAY_UPSTREAM"):
        clean.delenv(name)
    with pytest.raises(
        ConfigError, match="invalid settings:\n  OPENAI_REALTIME_CLIENT_SECRET_TTL: clientSecretTtlSeconds"
    ):
        Settings.load()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://App.Example.com:443", ("https://app.example.com",)),
        ("capacitor://localhost, file://,null", ("capacitor://localhost", "file://", "null")),
        ("chrome-extension://abcdef", ("chrome-extension://abcdef",)),
        ("*", ("*",)),
    ],
)
def test_origins_of_any_scheme_are_read(value: str, expected: tuple[str, ...]) -> None:
    assert loaded(RELAY_ALLOWED_ORIGINS=value).access.allowed_origins == expected


@pytest.mark.parametrize("value", ["*", "null", "file://", "capacitor://localhost"])
def test_an_origin_that_opens_more_than_it_seems_is_warned_of(value: str) -> None:
    [warning] = loaded(RELAY_ALLOWED_ORIGINS=value).warnings()
    assert "RELAY_ALLOWED_ORIGINS" in warning


def test_hosts_are_names_without_ports() -> None:
    settings = loaded(RELAY_HOSTS="Voice.example.com, relay.test")
    assert settings.access.hosts == ("voice.example.com", "relay.test")
    for wrong in ("voice.example.com:443", "https://a", "a/b", "a b"):
        with pytest.raises(ConfigError, match=r"RELAY_HOSTS: .* is not a host name"):
            loaded(RELAY_HOSTS=wrong)


def test_local_trust_can_be_ended_and_then_a_relay_without_keys_is_warned_of() -> None:
    settings = loaded(RELAY_LOCAL="OFF")
    assert not settings.access.trusts_local
    assert any("RELAY_LOCAL=off" in warning for warning in settings.warnings())
    assert not loaded(RELAY_LOCAL="off", RELAY_API_KEYS="k" * 16).warnings()
    with pytest.raises(ConfigError, match="RELAY_LOCAL"):
        loaded(RELAY_LOCAL="perhaps")


@pytest.mark.parametrize("keys", [{"RELAY_API_KEYS": "k" * 16}, {"RELAY_ADMIN_KEYS": f"{'a' * 16},{'k' * 16}"}])
def test_what_clients_hold_signs_nothing(keys: dict[str, str]) -> None:
    assert loaded(RELAY_TICKET_KEYS="t" * 16, **keys)
    with pytest.raises(ConfigError, match="RELAY_TICKET_KEYS") as refused:
        loaded(RELAY_TICKET_KEYS=f"{'t' * 16},{'k' * 16}", **keys)
    assert "k" * 16 not in str(refused.value)


def test_reread_takes_the_environment_of_now_and_the_same_overrides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(f"RELAY_API_KEYS={'a' * 16}\n")
    settings = Settings.load(**groups_of(server_port=9090))
    (tmp_path / ".env").write_text(f"RELAY_API_KEYS={'b' * 16}\nPORT=1\n")
    fresh = settings.reread()
    assert (fresh.access.api_keys, fresh.server.port) == (("b" * 16,), 9090)
    (tmp_path / ".env").write_text("RELAY_API_KEYS=short\n")
    with pytest.raises(ConfigError, match="RELAY_API_KEYS"):
        settings.reread()
    (tmp_path / ".env").write_bytes(b"RELAY_API_KEYS=\xff\n")
    for read in (settings.reread, Environment.read):
        with pytest.raises(ConfigError, match=r"\.env cannot be read"):
            read()
