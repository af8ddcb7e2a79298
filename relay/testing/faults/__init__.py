"""Faults of a Realtime endpoint, made on purpose: what `relay local --fault` and `relay.testing.scripted_upstream`
share.

A fault is written `NAME[=VALUE][@POINT][#N]`; several are separated by commas:

    drop=1006@response.output_audio.delta     the connection breaks behind the first sound
    stall=2000@input_audio_buffer.committed   nothing is sent for two seconds
    no-done#2                                 the second response has no response.done
    429=3                                     refused with Retry-After: 3

POINT is the type of a server's event, behind which the fault strikes, or a time since the connection ("500ms", "2s").
`#N` is the N-th time (1 if it is left out), `#*` every time.
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
