"""The files that are derived from the source are those that are there."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def regenerate(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "scripts" / "regenerate"), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_nothing_is_out_of_date() -> None:
    found = regenerate(ROOT, "--check")
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_what_is_out_of_date_is_named_and_written_anew(tmp_path: Path) -> None:
    figures = ("docs/device-protocol.md", "relay/protocols/device/schema.json", "relay/web/console/turn-metrics.js")
    names = (*figures, ".env.example", "docs/configuration.md")
    for name in ("scripts/regenerate", *names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    for name in names:
        text = (tmp_path / name).read_text().replace("firstByteMs", "firstBiteMs").replace("RELAY_OPEN", "RELAY_OPPEN")
        (tmp_path / name).write_text(text)
    (tmp_path / figures[2]).unlink()
    found = regenerate(tmp_path, "--check")
    assert found.returncode == 1
    assert all(f"{name} is out of date: run scripts/regenerate" in found.stdout for name in names)
    assert regenerate(tmp_path).returncode == 0
    assert all((tmp_path / name).read_bytes() == (ROOT / name).read_bytes() for name in names)
