"""`relay policies` on real files."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from relay.auth.keyring import key_identity
from relay.cli.app import app
from relay.errors import ConfigError

KEY = "relay-key-0123456789abcdef"
ADMIN_KEY = "admin-key-0123456789abcdef"


def test_it_shows_who_has_what_and_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "policies.toml"
    keys = f'keys = ["{key_identity(KEY)}", "key-of-nobody"]'
    limits = 'scopes = ["session", "mint"]\ninstructions = "Be kind."\ntools = ["a_*"]\nmax_output_tokens = 100'
    path.write_text(f'[policies.kiosk]\nallow = []\n{limits}\nmay_mint = ["default"]\n{keys}\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELAY_POLICIES", str(path))
    monkeypatch.setenv("RELAY_API_KEYS", KEY)
    monkeypatch.setenv("RELAY_ADMIN_KEYS", ADMIN_KEY)
    result = CliRunner().invoke(app, ["policies"])
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert f"key     {key_identity(KEY)} kiosk" in lines
    assert any(line.startswith("unknown key-of-nobody") for line in lines)
    assert any(line.startswith("policy  kiosk") and line.endswith("allow nothing") for line in lines)
    told = {line.strip() for line in lines}
    assert told >= {
        "scopes mint, session",
        "mints client secrets for kiosk, default",
        "own instructions, 8 characters",
        "tools a_*",
        "at most 100 output tokens per response",
        f"admin   {key_identity(ADMIN_KEY)} default",
    }
    assert KEY not in result.output
    assert ADMIN_KEY not in result.output


def test_it_tells_the_identity_of_a_key() -> None:
    assert CliRunner().invoke(app, ["policies", KEY]).output.strip() == key_identity(KEY)
    assert CliRunner().invoke(app, ["policies", "-"], input=f"{KEY}\n").output.strip() == key_identity(KEY)


def test_it_refuses_what_the_start_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELAY_POLICIES", "policies.toml")
    (tmp_path / "policies.toml").write_text('[policies.kiosk]\nvoice = "elevenlabs:x"\n')
    result = CliRunner().invoke(app, ["policies"])
    assert isinstance(result.exception, ConfigError)
    assert "ELEVENLABS_API_KEY" in str(result.exception)


def test_a_wrong_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELAY_POLICIES", "nowhere.toml")
    result = CliRunner().invoke(app, ["policies"])
    assert isinstance(result.exception, ConfigError)
