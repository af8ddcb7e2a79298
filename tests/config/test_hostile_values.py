"""Wrong names and values: no key shows in an error, a warning or a repr, and nothing takes long."""

import functools
import time
import traceback
from pathlib import Path

import pytest

from relay import NavaiOptions, Settings
from relay.config import AccessSettings, AzureSettings, Environment, OpenAISettings, ServerSettings, UpstreamSettings
from relay.errors import ConfigError

KEY = "s3cret-abcdefghijkl"
VALUES = (f"sk-{KEY}", f"https://me:{KEY}@h/x", f"wss://h/?key={KEY}", f"Bearer {KEY}", f"\udcffsk-{KEY}\x1b[31m")
VARIABLES = sorted(
    {name for group in Settings.groups().values() for v in group.variables().values() for name in v.names}
)


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_key_in_the_wrong_setting_does_not_show(variable: str) -> None:
    for value in VALUES:
        try:
            settings = Settings.load(Environment({variable: value}))
        except ConfigError as error:
            text = "".join(traceback.format_exception(error))
        else:
            groups = [getattr(settings, name) for name in Settings.groups()]
            fields = [
                field for group in groups for _, field in group.__repr_args__() if not isinstance(field, Path | tuple)
            ]
            text = f"{fields} {settings.warnings()} {settings.resolve_upstream()} {settings.environment}"
        assert KEY not in text
        assert "\x1b" not in text


def test_a_repr_has_no_key_of_a_url_and_no_argument_of_a_callable() -> None:
    settings = Settings(
        upstream=UpstreamSettings(target=f"wss://me:{KEY}@h/?key={KEY}"),
        openai=OpenAISettings(base_url=f"https://me:{KEY}@h/v1"),
        azure=AzureSettings(token_provider=functools.partial(str, KEY)),
    )
    assert KEY not in f"{settings!r} {settings} {settings.navai_options()} {settings.resolve_upstream()}"
    assert "target='wss://[…]@h/?[…]'" in repr(settings)
    options = NavaiOptions(openai_api_key=KEY, openai_base_url=f"https://me:{KEY}@h/v1")
    assert KEY not in repr(options)


def test_a_wrong_type_is_named_without_its_value() -> None:
    for value in (5, [KEY, 5], {KEY: KEY}, object(), KEY.encode()):
        with pytest.raises(ConfigError) as wrong:
            AccessSettings(api_keys=value)  # type: ignore[arg-type]
        assert KEY not in "".join(traceback.format_exception(wrong.value))
    with pytest.raises(ConfigError, match="5: is not a setting"):
        ServerSettings.model_validate({5: 1})


@pytest.mark.parametrize(
    ("name", "report"),
    [
        (f"OPENAI_API_KEY:{KEY}=", "OPENAI_API_KEY… (did you mean OPENAI_API_KEY?)"),
        (f"RELAY_API_KEYS {KEY}", "RELAY_API_KEYS… (did you mean RELAY_API_KEYS?)"),
        ("RELAY_ABCDEFG\n\x1b[31m", "RELAY_ABCDEFG…"),
        ("RELAY_\udcff", "RELAY_…"),
        ("RELAY_" + "X" * 100_000, f"RELAY_{'X' * 58}…"),
        ("RELAY_", "RELAY_"),
        ("relay_record", "relay_record (did you mean RELAY_RECORD?)"),
        ("RELAY_RECORD_", "RELAY_RECORD_ (did you mean RELAY_RECORD?)"),
    ],
)
def test_a_strange_name_is_cut_where_no_name_goes_on(name: str, report: str) -> None:
    environment = Environment({name: "="}, dotenv={name: "="})
    assert environment.unknown_names_warning(VARIABLES) == f"unknown settings are ignored: {report}"


def test_ten_thousand_unknown_names_are_one_short_warning() -> None:
    started_at = time.monotonic()
    warning = Environment({f"RELAY_RECROD_{number}": "1" for number in range(10_000)}).unknown_names_warning(VARIABLES)
    assert time.monotonic() - started_at < 1
    assert warning is not None
    assert len(warning) < 1000
    assert warning.endswith(", and others")


@pytest.mark.parametrize("content", [b"PORT=\xff\n", b"RELAY_\xff=1\n"])
def test_a_file_that_is_not_utf8_is_a_mistake(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(ConfigError, match=r"^\.env cannot be read: "):
        Settings.load()
