"""What a device session starts with under its policy, and what its client gets of what it asks for in a hello.

    settings ──► `initial_session` ──► the first configuration
    hello ─────► `grant` ────────────► the next one, and a refusal for each field that was not granted

The policy decides field by field, and what it denies stays as it was. A refused field does not refuse the others. The
client's tools are added to the server's. The formats towards the upstream follow from those of the client.
`Negotiation` owns the order: when a hello may come, and what is active until the upstream has accepted the next one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from relay.core.client_tools import merge
from relay.core.events import Hello
from relay.core.policy import Policy
from relay.core.values import EXTERNAL_VOICE, DeviceOptions, SessionConfig, ToolSpec, TurnDetection


@dataclass(frozen=True, slots=True)
class InitialSession:
    """What a session starts with; `model` is None where the configured one is dialled.

    `missing` names a value that the policy neither allows from the settings nor names itself. It refuses the session.
    """

    config: SessionConfig
    model: str | None = None
    missing: Literal["model", "voice"] | None = None


def initial_session(
    config: SessionConfig,
    policy: Policy,
    *,
    model: str | None = None,
    wanted_voice: str | None = None,
    external_voice: str | None = None,
    has_voices: bool = False,
) -> InitialSession:
    """What a device session starts with: `config`, which the settings make, as far as its policy allows it.

    `model` is the configured one, None where the policy has no say in it. `wanted_voice` is the client's, which has
    been checked. `external_voice` is the settings' external voice, and comes before the model's own.
    """
    voice = wanted_voice or policy.default_voice(external_voice, config.voice, kind=None if has_voices else "model")
    dialled = None if model is None else policy.default_model(model)
    limits = policy.realtime
    initial = replace(
        config,
        voice=voice,
        instructions=policy.instructions_with(None, config.instructions),
        transcription_model=policy.transcription_model(config.transcription_model),
        tools=tuple(tool for tool in config.tools if policy.allows_tool(tool.name)),
        max_output_tokens=limits.max_output_tokens,
        effort=limits.max_effort,
    )
    if model is not None and dialled is None:
        return InitialSession(initial, missing="model")
    if voice is None and config.voice is not None:
        return InitialSession(initial, missing="voice")
    return InitialSession(initial, None if dialled == model else dialled)


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
    denied = dict(_denied(hello, policy))
    allowed = set(hello.given) - denied.keys()
    is_reported = policy.realtime.denied_fields == "refuse"
    refusals = [(message, name) for name, message in denied.items()] if is_reported else []
    if "voice" in allowed and hello.voice and hello.voice.startswith(EXTERNAL_VOICE) and not has_voices:
        allowed.discard("voice")
        refusals.append(("This relay has no ElevenLabs voices; the voice is as before.", "voice"))
    tools, kept_out = merge(server_tools, hello.tools if "tools" in allowed else ())
    refusals += [(f"The tool {name} is the relay's own; give yours another name.", "tools") for name in kept_out]
    wanted = _config(config, hello, allowed, policy)
    got = replace(_options(options, hello, allowed), external_voice=wanted.external_voice is not None)
    wanted = replace(
        wanted,
        tools=tools if "tools" in allowed else config.tools,
        input_format=got.upstream_input,
        output_format=got.upstream_output,
    )
    return Granted(wanted, got, tuple(refusals))


def _denied(hello: Hello, policy: Policy) -> Iterator[tuple[str, str]]:
    """The fields that the policy does not let this client set, each with a sentence."""
    for name in hello.given:
        if name not in policy.hello_fields or _needs_more(name, hello, policy):
            yield name, f"This client may not set {name}; the rest is in force."
        elif name == "voice" and hello.voice and not policy.allows_voice(hello.voice):
            yield name, "This client may not choose that voice; it is as before."
        elif name == "language" and hello.language and not policy.allows_phrase(hello.language):
            yield name, "This client may name a language in three words at most; it is as before."


def _needs_more(name: str, hello: Hello, policy: Policy) -> bool:
    """Whether a field needs a capability that the policy does not give."""
    if name == "instructions":
        return not policy.allows("instructions")
    return name == "tools" and bool(hello.tools) and not policy.allows("client_tools")


def _options(options: DeviceOptions, hello: Hello, allowed: set[str]) -> DeviceOptions:
    return DeviceOptions(
        input=hello.input if "input" in allowed and hello.input else options.input,
        output=hello.output if "output" in allowed and hello.output else options.output,
        max_ahead_ms=hello.max_ahead_ms if "maxAheadMs" in allowed else options.max_ahead_ms,
        half_duplex=bool(hello.half_duplex) if "duplex" in allowed else options.half_duplex,
        upstream=options.upstream,
    )


def _config(config: SessionConfig, hello: Hello, allowed: set[str], policy: Policy) -> SessionConfig:
    if "voice" in allowed and hello.voice:
        config = replace(config, voice=hello.voice)
    if "instructions" in allowed and hello.instructions is not None:
        config = replace(config, instructions=policy.instructions_with(hello.instructions))
    if "language" in allowed and hello.language is not None:
        config = replace(config, language=hello.language or None)
    if "turn" in allowed and hello.turn and hello.turn != config.turn.kind:
        config = replace(config, turn=TurnDetection(kind=hello.turn))
    return config
