"""What a relay costs on this machine: CPU, added latency and memory of device sessions, beside HAProxy if there is one.

`scripts/bench` runs it. A load process holds both ends, the devices and a model that answers at once; the relay under
test stands between them as a process of its own, on a core of its own.
"""
