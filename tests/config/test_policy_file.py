"""The policy file: what it says, and every mistake in it at once."""

from pathlib import Path

import pytest

from relay.config.policy_file import MAX_FILE_BYTES, Policies
from relay.errors import ConfigError
from relay.session.common.policy import CAPABILITIES, DEFAULT_ALLOW, DEFAULT_SCOPES, RESTRICTED_ALLOW, SCOPES


def load(tmp_path: Path, text: str) -> Policies:
    path = tmp_path / "policies.toml"
    path.write_text(text)
    return Policies.load(path)


def test_without_a_file_there_is_the_default_that_lets_ordinary_applications_run() -> None:
    policies = Policies.load(None)
    assert policies.for_identity("anybody").realtime.allow == DEFAULT_ALLOW
    assert {"mcp", "image_urls"}.isdisjoint(DEFAULT_ALLOW)


def test_a_policy_belongs_to_the_keys_that_it_names(tmp_path: Path) -> None:
    policies = load(tmp_path, '[policies.kiosk]\nvoices = ["cedar"]\nkeys = ["key-1"]\n')
    assert policies.for_identity("key-1").name == "kiosk"
    assert policies.for_identity("key-1").realtime.voices == ("cedar",)
    assert policies.for_identity("key-2").name == "default"
    assert policies.names() == ["default", "kiosk"]


def test_one_with_instructions_is_guarded_unless_it_says_otherwise(tmp_path: Path) -> None:
    policies = load(
        tmp_path,
        '[policies.a]\ninstructions = "Be kind."\n'
        '[policies.b]\ninstructions = "Be kind."\nallow = ["prompt", "instructions"]\ndeny = ["instructions"]\n',
    )
    a, b = policies.get("a"), policies.get("b")
    assert a is not None
    assert a.realtime.allow == RESTRICTED_ALLOW
    assert b is not None
    assert b.realtime.allow == {"prompt"}


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as wrong:
        load(
            tmp_path,
            '[policies.a]\nmax_output_tokens = 0\nallow = ["everything"]\ncolour = 1\n[policies."B B"]\n[other]\n',
        )
    text = str(wrong.value)
    for part in ("policies.a.max_output_tokens", "policies.a.allow", "everything", "policies.a.colour", "B B", "other"):
        assert part in text


def test_a_policy_may_have_a_voice_of_its_own_and_say_which_may_be_named(tmp_path: Path) -> None:
    policies = load(
        tmp_path,
        '[policies.kiosk]\nvoice = "elevenlabs:voice-1"\nvoices = ["marin", "elevenlabs:a*"]\n'
        '[policies.lab]\nvoice = "cedar"\n',
    )
    kiosk = policies.get("kiosk")
    assert kiosk is not None
    assert [kiosk.allows_voice(voice) for voice in ("elevenlabs:voice-1", "elevenlabs:ab", "marin")] == [True] * 3
    assert [kiosk.allows_voice(voice) for voice in ("elevenlabs:b", "cedar")] == [False] * 2
    assert policies.external_voices() == {"kiosk": "elevenlabs:voice-1"}
    with pytest.raises(ConfigError, match=r"policies.kiosk.voice.*after elevenlabs:"):
        load(tmp_path, '[policies.kiosk]\nvoice = "elevenlabs: "\n')


@pytest.mark.parametrize("text", ["[", "\xff", '[policies.a]\nkeys=["k"]\n[policies.b]\nkeys=["k"]\n'])
def test_what_is_no_policy_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "policies.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match="RELAY_POLICIES"):
        Policies.load(path)


@pytest.mark.parametrize("value", ["[" * 5000, "9" * 5000])
def test_what_tomls_parser_does_not_get_through_is_no_policy_file(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match="RELAY_POLICIES"):
        load(tmp_path, f"[policies.a]\nmax_output_tokens = {value}\n")


def test_a_file_that_is_too_long_is_refused_rather_than_cut(tmp_path: Path) -> None:
    tight = '[policies.tight]\nscopes = ["session"]\nkeys = ["key-1a2b3c4d5e6f"]\n'
    fits = "#" * (MAX_FILE_BYTES - len(tight) - 1) + "\n" + tight
    assert load(tmp_path, fits).for_identity("key-1a2b3c4d5e6f").name == "tight"
    with pytest.raises(ConfigError, match="more than 1048576 bytes"):
        load(tmp_path, "#" * (MAX_FILE_BYTES - 1) + "\n" + tight)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        Policies.load(tmp_path / "nowhere.toml")


def test_the_page_says_what_every_capability_and_scope_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "access.md").read_text("utf-8")
    section = page.partition("\n## Policies\n")[2].partition("\n## ")[0]
    for name, text in (CAPABILITIES | SCOPES).items():  # type: ignore[operator]
        assert f"| `{name}` | {text} |" in section
    assert {"session", "tools", "speech", "mint"} == DEFAULT_SCOPES


def test_a_key_in_the_file_is_refused_and_never_repeated(tmp_path: Path) -> None:
    path = tmp_path / "policies.toml"
    path.write_text('[policies.kiosk]\nkeys = ["key-1a2b3c4d5e6f", "the-whole-key-0123456789"]\n')
    with pytest.raises(ConfigError, match=r"policies\.kiosk\.keys: \[1\] is not an identity") as refused:
        Policies.load(path)
    assert "the-whole-key" not in str(refused.value)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("max_tokens = 5", "policies.kiosk.max_tokens: is not a field; the fields are instructions, tools"),
        ('may_mint = "kiosk"', 'policies.kiosk.may_mint: must be a list, such as ["kiosk"]'),
        ('may_mint = ["nobody"]', "policies.kiosk.may_mint: there is no policy nobody"),
        ('scopes = ["sessions"]', "policies.kiosk.scopes: sessions is not one of mint, mint:*"),
    ],
)
def test_a_mistake_says_what_is_possible(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "policies.toml"
    path.write_text(f"[policies.kiosk]\n{line}\n")
    with pytest.raises(ConfigError) as refused:
        Policies.load(path)
    assert told in str(refused.value)
