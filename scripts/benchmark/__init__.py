"""Measures CPU, added latency and memory of device sessions, and compares them with HAProxy if it is installed.

`scripts/bench` runs it. A load process plays both peers: the devices, and an upstream that responds at once. The relay
under test runs between them in its own process, on its own core.
"""
