"""`relay policies` on real files."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from relay.auth.keyring import identity_of
from relay.cli import app
from relay.errors import ConfigError

KEY = "relay-key-0123456789abcdef"


def test_it_shows_who_has_what_and_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "policies.toml"
    keys = f'keys = ["{identity_of(KEY)}", "key-of-nobody"]'
    path.write_text(f'[policies.kiosk]\nallow = []\nscopes = ["session"]\nmay_mint = ["default"]\n{keys}\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELAY_POLICIES", str(path))
    monkeypatch.setenv("RELAY_API_KEYS", KEY)
    result = CliRunner().invoke(app, ["policies"])
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert f"key     {identity_of(KEY)} kiosk" in lines
    assert any(line.startswith("unknown key-of-nobody") for line in lines)
    assert any(line.startswith("policy  kiosk") and line.endswith("may nothing special") for line in lines)
    assert any(line.split() == ["scopes", "session;", "mints", "for", "kiosk,", "default"] for line in lines)
    assert KEY not in result.output


def test_it_tells_the_identity_of_a_key() -> None:
    assert CliRunner().invoke(app, ["policies", KEY]).output.strip() == identity_of(KEY)


def test_a_wrong_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELAY_POLICIES", "nowhere.toml")
    result = CliRunner().invoke(app, ["policies"])
    assert isinstance(result.exception, ConfigError)
