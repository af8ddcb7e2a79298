"""`relay console`: the link that it prints."""

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from relay.auth.admin_login import redeem_login_code
from relay.cli.app import app
from relay.errors import BadRequest


@pytest.mark.parametrize(
    ("settings", "arguments", "expected"),
    [
        ({}, [], "http://127.0.0.1:8080/login#code="),
        ({"PORT": "9090", "HOST": "0.0.0.0", "RELAY_OPEN": "1"}, [], "http://127.0.0.1:9090/login#code="),
        ({"HOST": "::1"}, [], "http://[::1]:8080/login#code="),
        ({"TLS_CERT": "c.pem", "TLS_KEY": "k.pem", "HOST": "localhost"}, [], "https://localhost:8080/login#code="),
        ({}, ["--url", "https://voice.example.com/"], "https://voice.example.com/login#code="),
    ],
)
def test_the_link_leads_to_the_relay_with_a_code_that_works_once(
    settings: dict[str, str], arguments: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELAY_STATE_DIR", str(tmp_path / "state"))
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, ["console", *arguments])
    assert result.exit_code == 0, result.output
    link = result.stdout.strip()
    assert link.startswith(expected)
    code = link.removeprefix(expected)
    assert redeem_login_code(tmp_path / "state", code, 0.0)
    assert not redeem_login_code(tmp_path / "state", code, 0.0)


def test_it_says_when_nothing_listens_and_where_the_login_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELAY_STATE_DIR", str(tmp_path / "state"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("PORT", str(listener.getsockname()[1]))
        assert "Nothing listens" not in CliRunner().invoke(app, ["console"]).stderr
    assert "Nothing listens" in CliRunner().invoke(app, ["console"]).stderr
    assert "https" in CliRunner().invoke(app, ["console", "--url", "http://10.0.0.5:8080"]).stderr


def test_what_is_no_address_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["console", "--url", "voice.example.com"])
    assert isinstance(result.exception, BadRequest)
