"""Files of the relay that other users of this machine can get at: one sentence for each, with the command to run."""

import shlex
import stat
from pathlib import Path

from dotenv import dotenv_values

from relay.config import Settings
from relay.core.known_secrets import KnownSecrets
from relay.private_files import is_exposed
from relay.secret_values import has_keys


def exposed_files(settings: Settings, known: KnownSecrets, *, records: bool) -> list[str]:
    """Warnings for the start: about `.env`, files with keys that settings name, and the recordings' folder."""
    found = [
        f"{path} {_open_to_others(path)} and holds keys. Run: chmod 600 {_quoted(path)}"
        for path in (settings.env_path, settings.policies, settings.mcp_servers)
        if path is not None and is_exposed(path) and _holds_keys(path, known, is_env=path == settings.env_path)
    ]
    tls_key = settings.tls_key
    if tls_key is not None and is_exposed(tls_key, stat.S_IRWXO):  # a group of its own is usual for such files
        found.append(f"TLS_KEY: {tls_key} {_open_to_others(tls_key)}. Run: chmod 600 {_quoted(tls_key)}")
    root = settings.recordings_dir
    if records and is_exposed(root):
        found.append(f"The recordings' folder {root} {_open_to_others(root)}. Run: chmod 700 {_quoted(root)}")
    return found


def _open_to_others(path: Path) -> str:
    return f"is open to other users of this machine (mode {stat.S_IMODE(path.stat().st_mode):04o})"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _holds_keys(path: Path, known: KnownSecrets, *, is_env: bool) -> bool:
    if not path.is_file():  # a pipe can be read once, and that was done
        return False
    text = path.read_text(encoding="utf-8", errors="replace")
    return known.redact(text) != text or (is_env and has_keys(dotenv_values(path)))
