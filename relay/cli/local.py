"""`relay local`: run the local engine alone."""

from relay.cli.terminal import say


async def run_local(host: str, port: int, *, fault: str, workers: int | None, max_session_s: float) -> None:
    """Serve until cancelled, and print the address on standard error. Raises ConfigError."""
    from relay.app.log_setup import setup_logging
    from relay.local_engine.server import serve
    from relay.testing.faults import parse_faults

    parse_faults(fault)  # fails on a spelling mistake before anything starts
    setup_logging("info", "text")

    def report_address(bound_port: int) -> None:
        say(f"ready: the local engine listens on ws://{host}:{bound_port}/v1/realtime", err=True)
        if fault:
            say(f"injected faults: {fault}", err=True)

    await serve(host, port, on_ready=report_address, workers=workers, faults=fault, max_session_s=max_session_s)


def list_faults() -> None:
    """Print the syntax and the effect of every fault."""
    from relay.testing.faults import FAULT_KINDS

    for name, kind in FAULT_KINDS.items():
        value = f"={kind.default or 'VALUE'}" if kind.value_type else ""
        point = "" if kind.point else "@POINT"
        say(f"{name + value + point:32} {kind.help}")
    say("")
    say("POINT: the type of a server event, or a time (500ms, 2s). #N after it: only the N-th time; #*: every time.")
