"""The page of settings and `.env.example`: their values load, and their examples run."""

import re
from pathlib import Path

import pytest
from dotenv import dotenv_values

from relay.config import SessionSettings, Settings
from relay.config.environment import Environment
from relay.errors import ConfigError

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "configuration.md").read_text("utf-8")


def test_the_example_loads_as_it_is_and_has_the_defaults_but_for_the_model() -> None:
    values = dotenv_values(ROOT / ".env.example")
    settings = Settings.load(Environment({name: value or "" for name, value in values.items()}))
    assert settings.model_dump() == Settings(session=SessionSettings(model="gpt-realtime-2.1")).model_dump()
    assert settings.warnings() == []
    assert {*values} == {
        variable.name for group in Settings.groups().values() for variable in group.variables().values()
    }


@pytest.mark.parametrize("group", Settings.groups().values())
def test_every_setting_has_a_description_in_short_sentences(group: type[Settings]) -> None:
    assert group.TITLE
    for name, info in group.model_fields.items():
        assert info.description, name
        assert info.description.endswith("."), name
        for sentence in re.split(r"(?<=[.:;])\s", info.description):
            assert len(sentence.split()) <= 25, sentence


def test_the_readme_leads_to_the_page() -> None:
    assert "(docs/configuration.md)" in (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("example", re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S))
def test_the_examples_run(example: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.environ", {})
    values = {"__name__": "example"}
    if "# ConfigError" in example:
        with pytest.raises(ConfigError, match=r"server\.prot: is not a setting; did you mean server\.port\?"):
            exec(example, values)
        return
    exec(example, values)
    settings = values.get("settings")
    assert not isinstance(settings, Settings) or settings.server.port == 9000
