"""All settings of the relay, in typed groups, with one report of all problems.

`Settings(...)` takes values in Python; `Settings.load(...)` reads the environment and `.env`. An empty value is unset.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Self, TypedDict, Unpack, cast
from urllib.parse import urlsplit

from pydantic import PrivateAttr, SecretStr

from relay.config.environment import RETIRED_NAMES, Environment
from relay.config.group import InvalidSettings, NameOf, SettingsGroup
from relay.config.loading import SettingsReader
from relay.config.navai_options import NavaiGroups, NavaiOptions
from relay.config.server_settings import AccessSettings, LimitSettings, LogSettings, RecordingSettings, ServerSettings
from relay.config.session_settings import NavaiSettings, SessionSettings, ToolSettings, TtsSettings, TurnSettings
from relay.config.upstream_settings import LOCAL, AzureSettings, OpenAISettings, UpstreamSettings
from relay.config.values import printable
from relay.loopback import is_loopback_host
from relay.session.common.limits import SessionLimits
from relay.session.common.model import ELEVENLABS_PREFIX, SessionConfig, TurnDetection
from relay.upstreams.endpoint import UpstreamEndpoint, names_model, realtime_url
from relay.upstreams.registry import AZURE_PREVIEW, find_dialect

RETIRING_MODELS = re.compile(
    r"^(gpt-realtime(-mini)?(-20\d\d-\d\d-\d\d)?|gpt-4o(-mini)?-realtime-preview(-20\d\d-\d\d-\d\d)?)$"
)
"""Models that OpenAI shuts down by 2027-01-20."""


class GroupOverrides(TypedDict, total=False):
    """The keywords of `Settings.load`."""

    upstream: UpstreamSettings
    openai: OpenAISettings
    azure: AzureSettings
    session: SessionSettings
    turns: TurnSettings
    tts: TtsSettings
    tools: ToolSettings
    navai: NavaiSettings
    server: ServerSettings
    access: AccessSettings
    limits: LimitSettings
    recording: RecordingSettings
    log: LogSettings


@dataclass(slots=True)
class SettingsSource:
    """The source of settings; `overrides` is None if they were created in Python."""

    environment: Environment = field(default_factory=Environment)
    names: dict[str, str] = field(default_factory=dict)
    overrides: GroupOverrides | None = None
    ignored_values: list[str] = field(default_factory=list)


class Settings(SettingsGroup, frozen=True):
    """All settings of the relay. Raises InvalidSettings, a ConfigError, with all problems."""

    upstream: UpstreamSettings = UpstreamSettings()
    openai: OpenAISettings = OpenAISettings()
    azure: AzureSettings = AzureSettings()
    session: SessionSettings = SessionSettings()
    turns: TurnSettings = TurnSettings()
    tts: TtsSettings = TtsSettings()
    tools: ToolSettings = ToolSettings()
    navai: NavaiSettings = NavaiSettings()
    server: ServerSettings = ServerSettings()
    access: AccessSettings = AccessSettings()
    limits: LimitSettings = LimitSettings()
    recording: RecordingSettings = RecordingSettings()
    log: LogSettings = LogSettings()

    _source: SettingsSource = PrivateAttr(default_factory=SettingsSource)

    @classmethod
    def groups(cls) -> dict[str, type[SettingsGroup]]:
        """Return the groups by name."""
        return {name: cast(type[SettingsGroup], info.annotation) for name, info in cls.model_fields.items()}

    @classmethod
    def secret_variables(cls) -> tuple[str, ...]:
        """Return the variables that contain keys."""
        return tuple(
            variable.name
            for group in cls.groups().values()
            for name, variable in group.variables().items()
            if not group.model_fields[name].repr
        )

    @classmethod
    def load(cls, environment: Environment | None = None, /, **overrides: Unpack[GroupOverrides]) -> Self:
        """Read the settings from the environment and `.env`, or from `environment`.

        Fields that are set in a group of `overrides` win: `Settings.load(server=ServerSettings(port=9000))`. Raises
        ConfigError.
        """
        groups = cls.groups()
        if unknown := [cls.unknown_keyword_problem(name) for name in overrides if name not in groups]:
            raise InvalidSettings(unknown)
        validated = {name: groups[name].model_validate(group) for name, group in overrides.items()}
        reader = SettingsReader(environment if environment is not None else Environment.read())
        try:
            settings = cls.model_validate(reader.read_all(groups, validated), context=reader.names)
        except InvalidSettings as error:
            raise InvalidSettings([*error.problems, *cls._unknown_names(reader.environment)]) from None
        source = settings._source
        source.environment, source.names = reader.environment, reader.names
        source.overrides, source.ignored_values = overrides, reader.warnings
        return settings

    def reread(self) -> Self:
        """Load the settings again from the environment and `.env`, with the same overrides. Raises ConfigError.

        Returns settings that were created in Python unchanged.
        """
        source = self._source
        if source.overrides is None:
            return self
        return type(self).load(source.environment.reread(), **source.overrides)

    @property
    def environment(self) -> Environment:
        """The environment that the settings were loaded from; empty if they were created in Python."""
        return self._source.environment

    def name_of(self, path: str) -> str:
        """Return the name that the user writes for a setting: `server.port`, PORT or --port."""
        return self._source.names.get(path, path)

    @classmethod
    def unknown_keyword_problem(cls, keyword: str) -> str:
        """Return the problem of an unknown keyword, with the group that has such a setting, or the nearest group."""
        for name, group in cls.groups().items():
            if keyword in group.model_fields:
                return f"{keyword}: is not a group of settings; did you mean {name}={group.__name__}({keyword}=...)?"
        return super().unknown_keyword_problem(keyword)

    def problems(self, name_of: NameOf) -> Iterator[str]:
        """Yield contradictions within each group and across groups."""
        for name in self.groups():
            yield from getattr(self, name).problems(name_of)
        target = name_of("upstream.target")
        if self.upstream.target == "azure" and (missing := self.azure.missing(name_of)):
            yield f"{target}=azure needs {', '.join(missing)}"
        if self.upstream.target == "openai" and self.openai.api_key is None:
            yield f"{target}=openai needs a key: set {name_of('openai.api_key')}"
        server, access = self.server, self.access
        if not server.is_loopback and not access.api_keys and not access.open:
            yield (
                f"{name_of('server.host')}={printable(server.host)} can be reached from other machines. Set "
                f"{name_of('access.api_keys')} (keys that clients must send), or {name_of('access.open')}=1 to "
                "admit every client"
            )
        if self.session.voice.startswith(ELEVENLABS_PREFIX):
            yield (
                f"{name_of('session.voice')} is the model's own voice; for an external one set "
                f"{name_of('tts.provider')}=elevenlabs and {name_of('tts.voice_id')}"
            )

    def warnings(self) -> list[str]:
        """Return warnings about valid settings that are probably mistakes, for the start-up log."""
        return [
            *self._upstream_warnings(),
            *self._unknown_names(self._source.environment),
            *self._unused_warnings(),
            *self._access_warnings(),
        ]

    @classmethod
    def _unknown_names(cls, environment: Environment) -> list[str]:
        known = [name for group in cls.groups().values() for var in group.variables().values() for name in var.names]
        unknown = environment.unknown_names_warning(known)
        return [unknown] if unknown else []

    def _upstream_warnings(self) -> Iterator[str]:
        endpoint, model = self.resolve_upstream(), self.session.model
        if endpoint.kind == "openai" and RETIRING_MODELS.match(model):
            name = self.name_of("session.model")
            yield f"{name}={model} is shut down on 2027-01-20; set gpt-realtime-2.1 or a later one"
        missing = self.azure.missing(self.name_of)
        if 0 < len(missing) < 3:
            yield f"The Azure configuration is incomplete and not used: set {', '.join(missing)}"
        if endpoint.dialect is AZURE_PREVIEW:
            is_automatic = self.upstream.dialect == "auto"
            chosen_by = self.name_of("azure.api_version" if is_automatic else "upstream.dialect")
            yield (
                f"Azure's preview protocol is deprecated since 2026-04-30: unset {chosen_by}, or use the address "
                "/openai/v1/realtime?model=<deployment>"
            )

    def _unused_warnings(self) -> Iterator[str]:
        for name in RETIRED_NAMES:
            if self._source.environment.find((name,)):
                yield f"{name} has no effect any more and can be removed"
        if self.tools.navai_folders is not None and "folders" in self.tools.model_fields_set:
            folders, navai_folders = self.name_of("tools.folders"), self.name_of("tools.navai_folders")
            yield f"{folders} is not used: {navai_folders} is set and replaces it"

    def _access_warnings(self) -> Iterator[str]:
        server, access, name_of = self.server, self.access, self.name_of
        if access.open:
            yield (
                f"{name_of('access.open')} is set: every client that can reach {printable(server.host)}, also through "
                "a reverse proxy, can use this relay and its provider key"
            )
        elif server.is_loopback and not access.trusts_local and not access.api_keys:
            local, keys = name_of("access.local"), name_of("access.api_keys")
            yield f"{local}=off without {keys}: no client key is configured, so only admins can use this relay"
        if not server.is_loopback and server.tls_cert is None:
            names = f"{name_of('server.tls_cert')} and {name_of('server.tls_key')}"
            yield (
                f"{name_of('server.host')}={printable(server.host)} without {names}: keys and audio cross the network "
                "in clear text unless a reverse proxy adds TLS, and admins cannot sign in from other machines"
            )
        yield from access.origin_warnings(name_of)

    def resolve_upstream(self) -> UpstreamEndpoint:
        """Return the upstream of these settings; `auto` means OpenAI, else Azure, else the local engine."""
        endpoint = self._endpoint()
        return replace(endpoint, dialect=find_dialect(endpoint.url, self.upstream.dialect))

    def _endpoint(self) -> UpstreamEndpoint:
        target, model, openai = self.upstream.target, self.session.model, self.openai
        if "://" in target:
            url_for = find_dialect(target, self.upstream.dialect).url_for or realtime_url
            return UpstreamEndpoint("url", url_for(target, model), _secret(self._key_for(target)), names_model(target))
        if target == "openai" or (target == "auto" and openai.api_key is not None):
            return UpstreamEndpoint("openai", realtime_url(openai.base_url, model), _secret(openai.api_key))
        resource = self.azure.resource if target in ("auto", "azure") else None
        if resource is not None:
            key = _secret(self.azure.api_key)
            return UpstreamEndpoint("azure", resource.websocket_url, key, has_fixed_model=True)
        return UpstreamEndpoint(LOCAL, None, None)

    def _key_for(self, url: str) -> str | None:
        """Return the key for a configured URL; OPENAI_API_KEY is sent only to OpenAI's host or this machine."""
        if self.upstream.key is not None:
            return self.upstream.key
        host = urlsplit(url).hostname or ""
        is_openai = host == urlsplit(self.openai.base_url).hostname
        return self.openai.api_key if is_openai or is_loopback_host(host) else None

    @property
    def fallback_voice(self) -> str | None:
        """The model's voice that replaces a failed external voice; None if the fallback is off."""
        return self.session.voice if self.tts.fallback == "model" else None

    def session_limits(self) -> SessionLimits:
        """Return the limits of a session's duration and idle time."""
        return SessionLimits(self.limits.max_duration_s or None, self.limits.max_idle_s or None)

    def session_config(self) -> SessionConfig:
        """Return the initial configuration of a session, without tools."""
        session, turns = self.session, self.turns
        model = session.transcription_model
        return SessionConfig(
            voice=session.voice,
            instructions=session.instructions,
            language=session.language,
            voice_accent=session.voice_accent,
            voice_tone=session.voice_tone,
            turn=TurnDetection(
                kind=turns.detection,
                threshold=turns.threshold,
                prefix_padding_ms=turns.prefix_padding_ms,
                silence_duration_ms=turns.silence_ms,
                eagerness=turns.eagerness,
            ),
            transcription_model=None if model.lower() == "off" else model,
            noise_reduction=None if session.noise_reduction == "off" else session.noise_reduction,
        )

    def navai_options(self) -> NavaiOptions:
        """Return the options of the NAVAI routes."""
        groups = NavaiGroups(self.openai, self.session, self.tts, self.tools, self.navai)
        return NavaiOptions.from_groups(groups, self._source.ignored_values)


def _secret(key: str | None) -> SecretStr | None:
    return None if key is None else SecretStr(key)
