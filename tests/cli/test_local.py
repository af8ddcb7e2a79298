from typer.testing import CliRunner

from relay.cli.app import app
from relay.errors import ConfigError
from relay.testing.faults import FAULT_KINDS


def test_the_faults_are_listed_with_how_they_are_written():
    result = CliRunner().invoke(app, ["local", "--fault", "list"])
    assert result.exit_code == 0
    assert [
        line.split()[0].split("=")[0].split("@")[0] for line in result.output.splitlines()[: len(FAULT_KINDS)]
    ] == list(FAULT_KINDS)
    assert "drop=1006@POINT" in result.output


def test_a_wrong_fault_stops_before_anything_listens():
    result = CliRunner().invoke(app, ["local", "--port", "0", "--workers", "0", "--fault", "explode"])
    assert isinstance(result.exception, ConfigError)
    assert "There is no fault 'explode'" in str(result.exception)
