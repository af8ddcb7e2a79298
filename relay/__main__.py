"""`python -m relay`: the same as the `relay` command.

`-m` puts the current folder first on the import path, where a user's own package `audio` would hide Relay's. The
console script does not have this problem.
"""

import sys
from importlib.util import find_spec
from pathlib import Path


def _check_audio_package() -> None:
    ours = Path(__file__).resolve().parent.parent / "audio"
    spec = find_spec("audio")
    package = Path(spec.origin).resolve().parent if spec is not None and spec.origin else None
    if package != ours:
        print(
            f"relay: {package} hides the relay's own package `audio`; use the command `relay` instead", file=sys.stderr
        )
        raise SystemExit(2)


if __name__ == "__main__":
    _check_audio_package()
    from relay.cli import main

    main()
