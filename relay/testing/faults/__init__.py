"""Fault injection for a Realtime endpoint, for `relay local --fault` and `relay.testing.scripted_upstream`.

A fault is written `NAME[=VALUE][@POINT][#N]`; several are separated by commas:

    drop=1006@response.output_audio.delta     the connection breaks after the first audio
    stall=2000@input_audio_buffer.committed   nothing is sent for two seconds
    no-done#2                                 the second response has no response.done
    429=3                                     the handshake is refused with Retry-After: 3

POINT is the type of a server event, after which the fault is triggered, or a time since the connection was opened
("500ms", "2s"). `#N` is the N-th occurrence (default 1), `#*` every one.
"""

from relay.testing.faults.injector import FaultInjector
from relay.testing.faults.script import FaultScript
from relay.testing.faults.spec import FAULT_KINDS, FaultSpec, HandshakeFault, handshake_fault, parse_faults

__all__ = [
    "FAULT_KINDS",
    "FaultInjector",
    "FaultScript",
    "FaultSpec",
    "HandshakeFault",
    "handshake_fault",
    "parse_faults",
]
