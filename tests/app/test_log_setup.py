"""No way into the log, and none past it, shows a secret."""

import json
import subprocess
import sys

import pytest

KEY = "Zx9-kEy-4f1c9e7b20d8"
PROGRAM = """
import asyncio, gc, logging, sys, threading, warnings
from relay.session.common.known_secrets import KnownSecrets
from relay.app.log_setup import redact_from_logs, setup_logging
KEY = sys.argv[2]
setup_logging("debug", sys.argv[1])
redact_from_logs(KnownSecrets(["another-secret-1"]))
redact_from_logs(KnownSecrets([KEY]))
log = logging.getLogger("some.library")
log.info("a %s", KEY)
log.warning(KEY)
try:
    raise ValueError(f"bad {KEY}")
except ValueError:
    log.exception("failed")
log.error("no such place %d", KEY)
warnings.warn(f"careful {KEY}")
def fail():
    raise RuntimeError(KEY)
thread = threading.Thread(target=fail)
thread.start()
thread.join()
class Late:
    def __del__(self):
        raise RuntimeError(KEY)
Late()
gc.collect()
async def main():
    async def lost():
        raise RuntimeError(KEY)
    task = asyncio.get_running_loop().create_task(lost())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task
    gc.collect()
    asyncio.get_running_loop().call_soon(fail)
    await asyncio.sleep(0)
asyncio.run(main())
print("all said", flush=True)
raise SystemExit(fail())
"""


@pytest.mark.parametrize("form", ["text", "json"])
def test_every_way_into_the_log_is_redacted(form: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, form, KEY], capture_output=True, text=True, timeout=30)
    assert done.stdout == "all said\n", done.stderr
    assert done.returncode == 1
    assert KEY not in done.stderr
    assert done.stderr.count("[…]") >= 10
    assert "cannot be logged (TypeError)" in done.stderr
    if form == "json":
        lines = [line for line in done.stderr.splitlines() if "cannot be logged" not in line]
        assert all(json.loads(line)["level"] for line in lines)


FOREIGN = "Rome\n12:00:00 INFO    the door is open\r\x1b[2J\x9b1A\u202e\u2028\x7f é👩\u200d🚀"
FORGING = """
import logging, sys
from relay.app.log_setup import setup_logging
FOREIGN = sys.argv[2]
setup_logging("info", sys.argv[1])
log = logging.getLogger("some.library")
log.info("asked about %s", FOREIGN)
try:
    raise ValueError(FOREIGN)
except ValueError:
    log.exception("failed")
log.info("from here", stack_info=True)
raise RuntimeError(FOREIGN)
"""


@pytest.mark.parametrize("form", ["text", "json"])
def test_foreign_text_forges_no_entry_and_commands_no_terminal(form: str) -> None:
    done = subprocess.run([sys.executable, "-c", FORGING, form, FOREIGN], capture_output=True, timeout=30)
    told = done.stderr.decode()
    assert [char for char in told if char in "\x1b\x9b\u202e\u2028\x7f\r"] == []
    assert told.count("é👩\u200d🚀") == 3
    entries = [line for line in told.split("\n")[:-1] if not line.startswith(" ")]
    assert len(entries) == 4
    if form == "json":
        assert json.loads(entries[0])["message"] == f"asked about {FOREIGN}"
    else:
        assert [entry.split(None, 1)[1].split()[0] for entry in entries] == ["INFO", "ERROR", "INFO", "CRITICAL"]
        assert r"asked about Rome\n12:00:00 INFO    the door is open\r\x1b[2J" in entries[0]
