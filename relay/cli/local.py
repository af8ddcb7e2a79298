"""`relay local`: the local engine by itself."""

from relay.cli.terminal import say


async def run_local(host: str, port: int, *, fault: str, workers: int | None, longest_s: float) -> None:
    """Serve until cancelled; says on standard error where it listens. Raises ConfigError."""
    from relay.app.log_setup import setup_logging
    from relay.local_engine.server import serve
    from relay.testing.faults import parse_faults

    parse_faults(fault)  # what is written wrong is told before anything else
    setup_logging("info", "text")

    def tell_ready(bound: int) -> None:
        say(f"ready: the local engine listens on ws://{host}:{bound}/v1/realtime", err=True)
        if fault:
            say(f"it misbehaves: {fault}", err=True)

    await serve(host, port, on_ready=tell_ready, workers=workers, faults=fault, max_session_s=longest_s)


def list_faults() -> None:
    """Print every fault, how it is written and what it does."""
    from relay.testing.faults import FAULT_KINDS

    for name, kind in FAULT_KINDS.items():
        value = f"={kind.default or 'VALUE'}" if kind.value_type else ""
        point = "" if kind.point else "@POINT"
        say(f"{name + value + point:32} {kind.help}")
    say("")
    say("POINT: the type of a server's event, or a time (500ms, 2s). #N behind it: the N-th time; #*: every time.")
