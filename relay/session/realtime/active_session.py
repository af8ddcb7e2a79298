"""What the upstream reports of the session: its model, its audio format, and when responses begin unrequested.

Each `session.created` and `session.updated` holds the settings that are active from then on. A setting that an event
leaves out stays as it was. By default the upstream answers each spoken turn by itself.
"""

from collections.abc import Mapping
from typing import Any

from relay.session.realtime.delta_view import DeltaView


class ActiveSession:
    """The settings that the rules need; `requested_model` is the one of the client's URL."""

    def __init__(self, requested_model: str, deltas: DeltaView) -> None:
        self._requested_model = requested_model
        self._deltas = deltas
        self._model: Any = None
        self.creates_responses = True
        """Whether the upstream answers a spoken turn without a request."""
        self.has_idle_timeout = False
        """Whether the upstream begins responses when nobody speaks."""

    def is_active_model(self, model: Any) -> bool:
        """Whether this is the session's model, by the upstream's name or the client's."""
        return isinstance(model, str) and model in (self._requested_model, self._model)

    def learn(self, session: Mapping[str, Any]) -> None:
        """The upstream reports the session."""
        self._model = session.get("model", self._model)
        audio = session.get("audio")
        if not isinstance(audio, Mapping):
            return
        output_settings, input_settings = audio.get("output"), audio.get("input")
        if isinstance(output_settings, Mapping):
            self._deltas.learn(output_settings.get("format"))
        if isinstance(input_settings, Mapping) and "turn_detection" in input_settings:
            turn = input_settings["turn_detection"]
            turn = turn if isinstance(turn, Mapping) else {"create_response": False}
            self.creates_responses = turn.get("create_response") is not False
            self.has_idle_timeout = turn.get("idle_timeout_ms") is not None
