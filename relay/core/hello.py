"""What a device asks for in its hello and gets of it, by its policy, the voices there are and the relay's own tools."""

from dataclasses import dataclass, replace

from relay.core.client_tools import merge
from relay.core.events import Hello
from relay.core.policy import Policy
from relay.core.values import EXTERNAL_VOICE, DeviceOptions, SessionConfig, ToolSpec, TurnDetection


@dataclass(frozen=True, slots=True)
class Granted:
    """What is to be in force; `refusals` are sentences with the field that each is about."""

    config: SessionConfig
    options: DeviceOptions
    refusals: tuple[tuple[str, str], ...]


def grant(
    hello: Hello,
    policy: Policy,
    config: SessionConfig,
    options: DeviceOptions,
    server_tools: tuple[ToolSpec, ...],
    *,
    has_voices: bool,
) -> Granted:
    """What a hello makes of `config` and `options`; `has_voices`: there are external voices."""
    refused = policy.refused(hello.given)
    refusals = [(f"This client may not set {name}; the rest is in force.", name) for name in refused]
    allowed = set(hello.given) - set(refused)
    if "voice" in allowed and hello.voice:
        why_not = _why_no_voice(hello.voice, policy, has_voices=has_voices)
        if why_not:
            allowed.discard("voice")
            refusals.append((why_not, "voice"))
    tools, kept_out = merge(server_tools, hello.tools if "tools" in allowed else ())
    refusals += [(f"The tool {name} is the relay's own; give yours another name.", "tools") for name in kept_out]
    wanted = _config(config, hello, allowed)
    got = replace(_options(options, hello, allowed), external_voice=wanted.external_voice is not None)
    wanted = replace(
        wanted,
        tools=tools if "tools" in allowed else config.tools,
        input_format=got.upstream_input,
        output_format=got.upstream_output,
    )
    return Granted(wanted, got, tuple(refusals))


def _why_no_voice(voice: str, policy: Policy, *, has_voices: bool) -> str:
    if not has_voices and voice.startswith(EXTERNAL_VOICE):
        return "This relay has no ElevenLabs voices; the voice is as before."
    if not policy.allows_voice(voice):
        return "This client may not choose that voice; it is as before."
    return ""


def _options(options: DeviceOptions, hello: Hello, allowed: set[str]) -> DeviceOptions:
    return DeviceOptions(
        input=hello.input if "input" in allowed and hello.input else options.input,
        output=hello.output if "output" in allowed and hello.output else options.output,
        max_ahead_ms=hello.max_ahead_ms if "maxAheadMs" in allowed else options.max_ahead_ms,
        half_duplex=bool(hello.half_duplex) if "duplex" in allowed else options.half_duplex,
    )


def _config(config: SessionConfig, hello: Hello, allowed: set[str]) -> SessionConfig:
    if "voice" in allowed and hello.voice:
        config = replace(config, voice=hello.voice)
    if "instructions" in allowed and hello.instructions is not None:
        config = replace(config, instructions=hello.instructions)
    if "language" in allowed and hello.language is not None:
        config = replace(config, language=hello.language or None)
    if "turn" in allowed and hello.turn and hello.turn != config.turn.kind:
        config = replace(config, turn=TurnDetection(kind=hello.turn))
    return config
