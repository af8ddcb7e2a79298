"""The one reader of the environment, and the names in it that nobody reads."""

import ast
import re
from pathlib import Path

import pytest

from relay.config import ServerSettings, Settings
from relay.config.environment import OTHER_NAMES, RETIRED_NAMES, Environment
from relay.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and no settings of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.environ", {"HOME": "/home/user"})
    return tmp_path


def variables() -> set[str]:
    groups = Settings.groups().values()
    return {name for group in groups for variable in group.variables().values() for name in variable.names}


def test_the_environment_wins_over_the_file_unless_it_is_empty(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".env").write_text("PORT=1\nHOST=a\nRELAY_HOSTS=b\nRELAY_TURN=manual\nTLS_KEY=\n")
    monkeypatch.setattr("os.environ", {"PORT": "2", "HOST": "", "RELAY_HOSTS": " ", "EMPTY": ""})
    environment = Environment.read()
    assert environment.values == {"PORT": "2", "HOST": "a", "RELAY_HOSTS": "b", "RELAY_TURN": "manual", "EMPTY": ""}
    assert environment.path == Path(".env")
    assert environment.find(("MISSING", "PORT")) == ("PORT", "2")
    assert environment.find(("EMPTY",)) is None


def test_an_option_of_the_command_line_wins_and_is_named() -> None:
    options = {"PORT": ("--port", 99999), "HOST": ("--host", None)}
    with pytest.raises(ConfigError, match="--port: must be less than or equal to 65535"):
        Settings.load(Environment.read(options))
    assert Environment.read(options).find(("HOST",)) is None


def test_a_file_that_cannot_be_read_is_a_mistake(folder: Path) -> None:
    (folder / ".env").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"\.env cannot be read"):
        Environment.read()


@pytest.mark.parametrize(
    ("name", "report"),
    [
        ("RELAY_RECROD", "RELAY_RECROD (did you mean RELAY_RECORD?)"),
        ("RELAY_PORT", "RELAY_PORT (did you mean PORT?)"),
        ("relay_turn", "relay_turn (did you mean RELAY_TURN?)"),
        ("RELAY_COFFEE_MACHINE", "RELAY_COFFEE_MACHINE"),
        ("OPENAI_REALTIME_VIOCE", "OPENAI_REALTIME_VIOCE (did you mean OPENAI_REALTIME_VOICE?)"),
        ("AZURE_OPENAI_DEPLOYMNT", "AZURE_OPENAI_DEPLOYMNT (did you mean AZURE_OPENAI_DEPLOYMENT?)"),
        ("ELEVENLABS_VOICEID", "ELEVENLABS_VOICEID (did you mean ELEVENLABS_VOICE_ID?)"),
        ("NAVAI_FUNCTION_FOLDERS", "NAVAI_FUNCTION_FOLDERS (did you mean NAVAI_FUNCTIONS_FOLDERS?)"),
    ],
)
def test_an_unknown_name_is_reported_with_the_nearest_one_and_no_value(name: str, report: str) -> None:
    warnings = Settings.load(Environment({name: "a-secret"})).warnings()
    assert warnings == [f"unknown settings are ignored: {report}"]


def test_all_unknown_names_are_one_warning() -> None:
    names = dict.fromkeys(("RELAY_RECROD", "NAVAI_VOICE", "OPENAI_API_KEYS"), "1")
    assert Settings.load(Environment(names)).warnings() == [
        "unknown settings are ignored: NAVAI_VOICE, OPENAI_API_KEYS (did you mean OPENAI_API_KEY?), "
        "RELAY_RECROD (did you mean RELAY_RECORD?)"
    ]


@pytest.mark.parametrize("name", [*OTHER_NAMES, "OPENAI_DEFAULT_TEAM", "ELEVENLABS_AGENT_ID", "MY_RELAY_RECORD"])
def test_names_of_other_programs_are_left_alone(name: str) -> None:
    assert Settings.load(Environment({name: "1"})).warnings() == []


def test_in_the_relays_own_file_every_unknown_name_is_reported(folder: Path) -> None:
    (folder / ".env").write_text("OPENAI_DEFAULT_TEAM=1\nOPENAI_LOG=debug\n")
    assert Settings.load().warnings() == ["unknown settings are ignored: OPENAI_DEFAULT_TEAM"]


def test_a_name_in_lower_case_is_another_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".env").write_text("port=9000\nrelay_open=1\ncolor=red\n")
    monkeypatch.setattr("os.environ", {"host": "0.0.0.0"})
    settings = Settings.load()
    assert (settings.server.host, settings.server.port, settings.access.open) == ("127.0.0.1", 8080, False)
    assert settings.warnings() == [
        "unknown settings are ignored: port (did you mean PORT?), relay_open (did you mean RELAY_OPEN?)"
    ]


def test_no_known_name_is_reported_and_none_is_in_two_places() -> None:
    assert Environment(dict.fromkeys(variables(), "1")).unknown_names_warning(variables()) is None
    assert not variables() & {*OTHER_NAMES, *RETIRED_NAMES}


def test_what_kubernetes_sets_for_a_service_called_relay_is_no_mistake() -> None:
    names = ["RELAY_SERVICE_HOST", "RELAY_SERVICE_PORT", "RELAY_SERVICE_PORT_HTTP", "RELAY_PORT"]
    names += ["RELAY_PORT_8080_TCP", "RELAY_PORT_8080_TCP_ADDR"]
    assert Environment(dict.fromkeys(names, "x")).unknown_names_warning(variables()) is None
    assert Environment({"RELAY_PORT": "80"}).unknown_names_warning(variables()) is not None


def test_every_name_in_a_text_of_the_code_is_known() -> None:
    pattern = re.compile(r"\b(?:RELAY|OPENAI|AZURE_OPENAI|ELEVENLABS|NAVAI)_[A-Z_]*[A-Z]\b")
    paths = [path for folder in ("relay", "tools") for path in (ROOT / folder).rglob("*.py")]
    nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text()))]
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    names = {name for text in texts for name in pattern.findall(text)} - {
        "OPENAI_CAPABILITIES",
        "RELAY_SERVICE_HOST",
    }  # a constant; Kubernetes
    assert "RELAY_API_KEYS" in names
    assert names <= variables() | OTHER_NAMES.keys() | {*RETIRED_NAMES}


def test_only_one_module_reads_the_environment_for_settings() -> None:
    """What else has `os.environ` hands it to a child process, or is a client with a key of its own."""
    readers = {
        str(path.relative_to(ROOT / "relay"))
        for path in (ROOT / "relay").rglob("*.py")
        if re.search(r"os\.environ\.(get|items|copy)|os\.environ\[|getenv|dotenv_values", path.read_text())
    }
    assert readers <= {"config/environment.py", "client/handshake.py"}


def test_reading_again_keeps_options_and_overrides(folder: Path) -> None:
    (folder / ".env").write_text("RELAY_MAX_SESSIONS=1\nPORT=1\n")
    environment = Environment.read({"HOST": ("--host", "127.0.0.2")})
    settings = Settings.load(environment, server=ServerSettings(port=2))
    (folder / ".env").write_text("RELAY_MAX_SESSIONS=3\nPORT=3\nHOST=127.0.0.3\n")
    fresh = settings.reread()
    assert (fresh.limits.max_sessions, fresh.server.port, fresh.server.host) == (3, 2, "127.0.0.2")


def test_settings_given_in_python_are_not_read_again(folder: Path) -> None:
    (folder / ".env").write_text("PORT=1\n")
    settings = Settings(server=ServerSettings(port=2))
    assert settings.reread() is settings
