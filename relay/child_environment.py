"""The environment of child processes: an allowlist of variables.

The relay's environment holds keys, and a variable's name does not say whether it is one. So a child gets only the
variables listed here. `PYTHONPATH` is special: an empty or relative entry means the working folder, where anybody can
put a `json.py`. A server that is not ours never gets it. A Python child of the relay gets its absolute entries, because
the relay and its packages may have been loaded from there.
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
"""The trusted certificates, for children that open TLS connections."""
INTERPRETER_VARIABLES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME", "PYTHONUSERBASE")
"""For Python children of the relay: without these, some installations of Python do not start or find no packages."""


def is_allowed(name: str) -> bool:
    """Return whether every child gets this variable; its value is therefore not treated as a secret."""
    return name in ALLOWED_VARIABLES or name.startswith(ALLOWED_PREFIXES)


def child_environment(environ: Mapping[str, str], extra: Iterable[str] = ()) -> dict[str, str]:
    """Return the variables of `environ` that a child may see, and those that `extra` names."""
    extra_names = frozenset(extra)
    return {name: value for name, value in environ.items() if is_allowed(name) or name in extra_names}


def python_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a Python child that runs a module of the relay (`python_command`)."""
    path = [entry for entry in environ.get("PYTHONPATH", "").split(os.pathsep) if Path(entry).is_absolute()]
    return child_environment(environ, INTERPRETER_VARIABLES) | ({"PYTHONPATH": os.pathsep.join(path)} if path else {})


def python_command(module: str, *arguments: str) -> tuple[str, ...]:
    """Return the command line that runs a module of the relay. -P keeps the working folder off the import path.

    If the relay runs from its sources without being installed, its folder is appended to the import path. At the end,
    no file of that folder can hide a module of the standard library.
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
    """Return whether this interpreter finds `root` by itself: an installed package, or an editable install (`.pth`)."""
    for folder in {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}:
        if folder == root or any(str(root) in _read_lines(file) for file in folder.glob("*.pth")):
            return True
    return False


def _read_lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except (OSError, UnicodeDecodeError):  # Python ignores it as well
        return []
