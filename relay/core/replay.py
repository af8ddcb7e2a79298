"""A recorded journal through today's rules: the same events at the same times must lead to the same commands.

Pure as the rules are: ids come from a counter that starts where the recorded one did, time from the journal.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from relay.core.device_session import DeviceSession
from relay.core.events import Event
from relay.core.journal import to_json
from relay.core.journal_lines import PASSED_ON, Happened, done_of
from relay.core.limits import SessionLimits
from relay.core.policy import Principal
from relay.core.realtime_events import UpstreamSaid
from relay.core.realtime_session import RealtimeSession
from relay.core.redact import clean
from relay.core.values import DeviceOptions, SessionConfig, SpeechRules

NEIGHBOURS = 3
ID_PREFIX = "relay_"


@dataclass(frozen=True, slots=True)
class Beginning:
    """All that a session was made of, besides what happened to it."""

    session_id: str
    config: SessionConfig
    options: DeviceOptions
    principal: Principal
    started_at: float
    speech: SpeechRules | None = None
    limits: SessionLimits = SessionLimits()  # frozen
    realtime: "RealtimeStart | None" = None

    @property
    def kind(self) -> str:
        """Whose session it was: "device", or "realtime"."""
        return "device" if self.realtime is None else "realtime"


@dataclass(frozen=True, slots=True)
class RealtimeStart:
    """What a Realtime client's session begins with besides: the model of its URL, the session of its client secret."""

    model: str = ""
    initial: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A line near a difference, in short."""

    number: int
    now: float
    text: str


@dataclass(frozen=True, slots=True)
class Difference:
    """The first line at which today's rules do something else; `before` are the lines that led to it."""

    number: int
    now: float
    event: Any
    recorded: Sequence[Any]
    today: Sequence[Any]
    before: Sequence[Neighbour] = ()


@dataclass(slots=True)
class Rerun:
    """One session again. Feed it the journal's lines in order; `commands` are those of the last one."""

    beginning: Beginning
    session: DeviceSession | RealtimeSession = field(init=False)
    commands: Sequence[Any] = ()
    _before: "deque[Neighbour]" = field(default_factory=lambda: deque(maxlen=NEIGHBOURS))

    def __post_init__(self) -> None:
        self.session = new_session(self.beginning)

    @property
    def before(self) -> tuple[Neighbour, ...]:
        """The last lines that were the same."""
        return tuple(self._before)

    def step(self, number: int, line: Happened, event: Any) -> Difference | None:
        """Let `event`, which is the line's with its audio, happen again; the difference, if there is one."""
        recorded: Sequence[Any]
        try:
            commands: Sequence[Any] = self.session.handle(event, line.now)
            self.commands = commands
        except Exception as error:  # what our rules raised then is compared like all else
            self.commands = ()
            today: Sequence[Any] = [f"raised {type(error).__name__}: {error}"]
            recorded = [f"raised {line.raised}"] if line.raised is not None else list(line.do or ())
            same = line.raised is not None and line.raised.partition(":")[0] == type(error).__name__
        else:
            if line.do == (PASSED_ON,) and len(self.commands) == 1 and self.commands[0] is event:
                self._passed(number, line)  # sound, and nothing but sound
                return None
            today = done_of(event, self.commands)
            recorded = [f"raised {line.raised}"] if line.do is None else line.do
            same = line.do is not None and today == _settled(line.do)
        if same:
            self._passed(number, line)
            return None
        return Difference(number, line.now, shown(line), recorded, today, self.before)

    def _passed(self, number: int, line: Happened) -> None:
        self._before.append(Neighbour(number, line.now, shown(line)))


def new_session(beginning: Beginning) -> Any:
    """The session as it was before anything happened: a DeviceSession, or a RealtimeSession."""
    numbers = itertools.count(1)
    if beginning.realtime is not None:
        return RealtimeSession(
            beginning.session_id,
            beginning.principal,
            beginning.config.tools,
            lambda: str(next(numbers)),
            model=beginning.realtime.model,
            initial=beginning.realtime.initial,
            limits=beginning.limits,
            started_at=beginning.started_at,
        )
    return DeviceSession(
        beginning.session_id,
        beginning.config,
        beginning.options,
        lambda: f"{ID_PREFIX}{next(numbers)}",
        principal=beginning.principal,
        limits=beginning.limits,
        started_at=beginning.started_at,
        speech=beginning.speech,
    )


def first_difference(beginning: Beginning, lines: Iterable[tuple[int, Happened, Event]]) -> Difference | None:
    """Run lines (number, line, event with audio) again; None if all commands are the same."""
    rerun = Rerun(beginning)
    for number, line, event in lines:
        difference = rerun.step(number, line, event)
        if difference is not None:
            return difference
    return None


def _settled(do: Sequence[Any]) -> list[Any]:
    # What was redacted when it was written is redacted in today's as well; a journal that was redacted later
    # may hold more of it.
    return [one if one == PASSED_ON else clean(one) for one in do]


def shown(line: Happened) -> str:
    """A line in short: its event's name and fields, without sound."""
    if line.n_audio_bytes or type(line.event).__name__ == "Forwarded":
        kind = getattr(line.event, "kind", "audio")
        return f"{kind} {getattr(line.event, 'item_id', '')} {line.n_audio_bytes} bytes".replace("  ", " ")
    if isinstance(line.event, UpstreamSaid):
        return f"the model's {bytes(line.event.raw).decode(errors='replace'):.160}"
    told = clean(to_json(line.event))
    fields = ", ".join(f"{name}={value!r:.60}" for name, value in told.items() if name != "t" and value is not None)
    return f"{told['t']}({fields})"
