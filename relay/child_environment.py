"""The environment of child processes: a list of variables that may be handed on, and nothing else.

The relay's environment holds keys, and names do not tell which variables do. So a child is given what this table names.
`PYTHONPATH` is special: an empty or relative entry means the working folder, where anybody's `json.py` may lie. A
server that is not ours never gets it; a Python child of ours gets its absolute entries, for they are where the relay
and its packages may have been loaded from.
"""

import functools
import os
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path

ALLOWED_VARIABLES = frozenset(
    {
        # where programs, files and the user are
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TMPDIR", "TEMP", "TMP", "TZ",
        # language of messages and encoding of text; LC_* besides
        "LANG", "LANGUAGE",
        # the Python that runs the relay, and how it reads and writes
        "VIRTUAL_ENV", "PYTHONHASHSEED", "PYTHONIOENCODING", "PYTHONUTF8", "PYTHONUNBUFFERED",
        "PYTHONDONTWRITEBYTECODE", "PYTHONNOUSERSITE",
        # how many threads numerical libraries start
        "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE", "MKL_NUM_THREADS",
        # what Windows programs do not start without
        "APPDATA", "COMSPEC", "HOMEDRIVE", "HOMEPATH", "LOCALAPPDATA", "NUMBER_OF_PROCESSORS", "PATHEXT",
        "PROCESSOR_ARCHITECTURE", "PROGRAMDATA", "SYSTEMDRIVE", "SYSTEMROOT", "USERNAME", "USERPROFILE", "WINDIR",
    }
)  # fmt: skip
ALLOWED_PREFIXES = ("LC_",)
TLS_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""For children that dial out: whom they trust."""
INTERPRETER_VARIABLES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME", "PYTHONUSERBASE")
"""For Python children of ours: without these, some installations of Python do not start or find no packages."""


def is_allowed(name: str) -> bool:
    """Whether a variable is handed on to every child; what it holds is thus no secret."""
    return name in ALLOWED_VARIABLES or name.startswith(ALLOWED_PREFIXES)


def child_environment(environ: Mapping[str, str], extra: Iterable[str] = ()) -> dict[str, str]:
    """What a child may see of `environ`; `extra` names further variables that this child needs."""
    named = frozenset(extra)
    return {name: value for name, value in environ.items() if is_allowed(name) or name in named}


def python_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The same for a Python child that runs a module of ours; see `python_command`."""
    path = [entry for entry in environ.get("PYTHONPATH", "").split(os.pathsep) if Path(entry).is_absolute()]
    return child_environment(environ, INTERPRETER_VARIABLES) | ({"PYTHONPATH": os.pathsep.join(path)} if path else {})


def python_command(module: str, *arguments: str) -> tuple[str, ...]:
    """How a module of ours is run. -P: the working folder stays off the import path.

    A relay that was never installed and runs from its sources is found by its folder, at the end of the import path:
    there no file of that folder can hide a module of Python's own.
    """
    if _is_installed(_ROOT):
        return (sys.executable, "-P", "-m", module, *arguments)
    return (sys.executable, "-P", "-c", _RUN_FROM_SOURCES, str(_ROOT), module, *arguments)


_ROOT = Path(__file__).resolve().parent.parent
_RUN_FROM_SOURCES = (
    "import sys; sys.path.append(sys.argv.pop(1)); import runpy; "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


@functools.cache
def _is_installed(root: Path) -> bool:
    """Whether this interpreter finds `root` by itself, among its packages or by a `.pth` file (an editable install)."""
    for folder in {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}:
        if folder == root or any(str(root) in _lines(file) for file in folder.glob("*.pth")):
            return True
    return False


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except (OSError, UnicodeDecodeError):  # Python ignores it as well
        return []
