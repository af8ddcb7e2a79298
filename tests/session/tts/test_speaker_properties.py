"""At any timing of text, audio and interruptions, the history is what was heard, and every turn ends."""

import itertools
from collections import deque
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from audio.formats import PCM16_24K
from relay.session.common.model import Alignment, DeviceOptions, Item, SentAudio, SessionConfig, TtsOptions
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.device.session import DeviceSession
from relay.session.tts.stream import MAX_CONTEXTS
from tests.support.media import MediaPath, OutputAudio, SpeechAudio

MS_PER_LETTER = 50
BYTES = MS_PER_LETTER * 48
WORDS = ("One ", "two. ", "Three ", "four! ", "Five", " six. ", "seven ")


class Speaker:
    """The voice's end: a letter is spoken in `MS_PER_LETTER`, blanks take no time."""

    def __init__(self, times: bool) -> None:
        self.times = times
        self.open: dict[str, deque[str]] = {}
        self.closing: set[str] = set()
        self.hushed: set[str] = set()

    def take(self, command: cmd.Command) -> None:
        match command:
            case cmd.SynthesizeSentence(context_id, text):
                assert context_id not in self.closing | self.hushed, "words for a closed context"
                speaking = [one for one in self.open if one not in self.closing | self.hushed]
                assert speaking in ([], [context_id]), "at most one context speaks"
                self.open.setdefault(context_id, deque()).extend("".join(text.split()))
                assert len(self.open) <= MAX_CONTEXTS, "the sixth context would end the connection"
            case cmd.FinishTtsContext(context_id):
                self.closing.add(context_id)
            case cmd.CancelTtsContext(context_id):
                self.hushed.add(context_id)
            case cmd.DisconnectTts():
                self.open.clear()

    def say(self, which: int, letters: int) -> ev.TtsEvent | SpeechAudio | None:
        """More audio of a context, also of a closed one; or its end, when all was spoken."""
        if not self.open:
            return None
        context_id = list(self.open)[which % len(self.open)]
        waiting = self.open[context_id]
        said = [waiting.popleft() for _ in range(min(letters, len(waiting)))]
        if said:
            times = Alignment(
                tuple(said), tuple(n * MS_PER_LETTER for n in range(len(said))), tuple(MS_PER_LETTER for _ in said)
            )
            return SpeechAudio(context_id, len(said) * BYTES, times if self.times else None)
        if context_id in self.closing | self.hushed:
            del self.open[context_id]
            return ev.TtsContextDone(context_id)
        return None


class Conversation:
    """A session with a model, a voice, and a client that plays what it is sent at once and in full."""

    def __init__(self, times: bool, fallback: bool) -> None:
        numbers = itertools.count(1)
        config = SessionConfig(voice="elevenlabs:v")
        rules = TtsOptions(fallback_voice="marin" if fallback else None)
        self.session = DeviceSession(
            "rs", config, DeviceOptions(output=PCM16_24K), lambda: f"relay_{next(numbers)}", tts_options=rules
        )
        self.media = MediaPath(self.session)
        self.now = 0.0
        self.voice = Speaker(times)
        self.history: dict[str, str] = {}
        self.written: dict[str, str] = {}
        self.active: str | None = None
        self.cancelled = False
        self.asked = 0
        self.n = 0
        self.handed: dict[str, int] = {}
        self.clips: dict[str, bool] = {}
        self.silent: set[str] = set()
        self.failed: set[str] = set()
        self.external: set[str] = set()
        self.received: dict[str, int] = {}
        self.ended: set[str] = set()
        self.heard_ms: dict[str, int] = {}
        self.origin: dict[str, str] = {}
        self.deleted = ""
        self.open_ends = 0
        self.hold_ms = 0
        for event in (ev.SessionCreated(), ev.SessionUpdated(), ev.TtsConnected()):
            self.feed(event)

    def feed(self, event: Any) -> None:
        pending = deque([event])
        while pending:
            for command in self.media.handle(pending.popleft(), self.now):
                self.voice.take(command)
                match command:
                    case cmd.ClearPlayout():
                        clips = [SentAudio(item, 0, ms, max(ms - self.hold_ms, 0)) for item, ms in self.handed.items()]
                        self.silent |= self.handed.keys() | self.clips.keys()
                        self.note_cut()
                        self.handed.clear()
                        self.clips.clear()
                        pending.append(ev.PlayoutCleared(tuple(clips)))
                    case OutputAudio(item_id=item_id, n_bytes=n_bytes):
                        assert item_id not in self.silent, "sound of a closed context"
                        assert self.clips.get(item_id) is True
                        self.handed[item_id] = self.handed.get(item_id, 0) + n_bytes // 48
                        self.received[item_id] = self.received.get(item_id, 0) + n_bytes // 48
                    case cmd.SendAudioStart(item_id):
                        assert True not in self.clips.values(), "one clip at a time"
                        self.clips[item_id] = True
                    case cmd.SendAudioEnd(item_id):
                        self.clips[item_id] = False
                        self.ended.add(item_id)
                    case cmd.SendError("voice_failed"):
                        self.failed |= {item for item in self.written if item in self.clips or item not in self.handed}
                    case cmd.SendInterrupted(item_id, played_ms, heard):
                        self.check_heard(item_id, played_ms, heard)
                    case cmd.ConnectTts():
                        pending.append(ev.TtsConnected())
                    case cmd.ConfigureSession():
                        pending.append(ev.SessionUpdated())
                    case cmd.SendResponseStart():
                        self.open_ends += 1
                    case cmd.SendResponseEnd():
                        self.open_ends -= 1
                    case _:
                        self.upstream(command, pending)

    def upstream(self, command: cmd.Command, pending: "deque[ev.Event]") -> None:
        match command:
            case cmd.CreateResponse():
                assert self.active is None, "a response is asked for while one is under way"
                self.asked += 1
            case cmd.CancelResponse(response_id):
                self.cancelled = self.cancelled or response_id == self.active
            case cmd.DeleteItem(item_id):
                if self.active is not None:
                    assert item_id != f"item_{self.active}", "the history of a response that still grows"
                assert self.history.pop(item_id, None) is not None, "an item that is not there"
                self.deleted = item_id
                pending.append(ev.ItemDeleted(item_id))
            case cmd.CreateItem(item, _, after) if item.role == "assistant":
                assert after in (*self.history, "root"), "behind an item that is not there"
                self.history[item.id] = item.text
                self.origin[item.id] = self.deleted
                pending.append(ev.ItemAdded(item, None if after == "root" else after))

    def check_heard(self, item_id: str, played_ms: int, heard: str) -> None:
        if self.voice.times and item_id not in self.failed:
            n_letters = len("".join(heard.split()))
            assert n_letters * MS_PER_LETTER <= played_ms, "no word counts that did not sound to its end"
            assert "".join(self.written.get(item_id, "").split()).startswith("".join(heard.split()))

    def note_cut(self) -> None:
        """The client falls silent: what it has not played by now is never heard."""
        for item in self.external - self.heard_ms.keys():
            ms, is_whole = self.received.get(item, 0), item in self.ended
            heard_ms = max(self.handed.get(item, ms if is_whole else 0) - self.hold_ms, 0)
            if is_whole and item not in self.handed:
                continue  # heard long ago
            if not (is_whole and heard_ms >= ms):
                self.heard_ms[item] = heard_ms

    def check_history(self) -> None:
        """The model's history is what the client played, by the times of the characters."""
        for item_id, text in self.history.items():
            item = self.origin.get(item_id, item_id)
            if item not in self.external or item in self.failed:
                continue  # the model's own voice; or its text was read
            whole = self.written[item].strip()
            if item not in self.heard_ms:
                assert text.strip() == whole, "nobody interrupted it"
                assert self.received.get(item, 0) == len("".join(whole.split())) * MS_PER_LETTER
            elif self.voice.times:
                assert text.split() == _words_within(whole, self.heard_ms[item])

    # -- what can happen ----------------------------------------------------------------------------------------------

    def act(self, what: str, a: int) -> None:
        getattr(self, what)(a)

    def write(self, a: int) -> None:
        if self.active is None and self.asked:
            self.asked, self.n, self.cancelled = 0, self.n + 1, False
            self.active = f"resp_{self.n}"
            item = f"item_{self.active}"
            before = next(reversed(self.history), None)
            self.history[item] = self.written[item] = ""
            if self.session.config.external_voice is not None:
                self.external.add(item)
            self.feed(ev.ResponseCreated(self.active))
            self.feed(ev.ItemAdded(Item(item, "message", "assistant"), before))
        for n in range(a, 2 * a + 1) if self.active is not None else ():
            item, text = f"item_{self.active}", WORDS[n % len(WORDS)]
            self.history[item] += text
            self.written[item] += text
            spoken = self.session.config.external_voice is None
            self.feed(ev.TextDelta(self.active, item, 0, text, spoken=spoken))

    def done(self, a: int) -> None:
        if self.active is not None:
            response, self.active = self.active, None
            status: Any = "cancelled" if self.cancelled else "completed"
            item = Item(f"item_{response}", "message", "assistant", text=self.written[f"item_{response}"])
            self.feed(ev.ResponseDone(response, status, output=(item,)))

    def sound(self, a: int) -> None:
        event = self.voice.say(a, 1 + 3 * a)
        if event is not None:
            self.feed(event)

    def speak(self, a: int) -> None:
        self.hold_ms = a * 70
        self.feed(ev.SpeechStarted(f"user_{self.now}"))
        self.feed(ev.SpeechStopped(f"user_{self.now}"))
        self.feed(ev.InputCommitted(f"user_{self.now}"))

    def interrupt(self, a: int) -> None:
        self.hold_ms = a * 70
        self.feed(ev.Interrupt())

    def text(self, a: int) -> None:
        self.feed(ev.UserText("well"))

    def wait(self, a: int) -> None:
        self.now += a * 0.1

    def fail(self, a: int) -> None:
        if a == 0:
            self.voice.open.clear()
            self.failed |= self.external - self.ended
            self.feed(ev.TtsFailed("Gone.", "1006"))

    def finish(self) -> None:
        """Complete everything that is pending."""
        for _ in range(500):
            if self.active is not None:
                self.done(0)
            elif self.asked:
                self.write(0)
            elif (event := self.voice.say(0, 100)) is not None:
                self.feed(event)
            elif (deadline := self.session.deadline) is not None and deadline < self.now + 60:
                self.now = max(self.now, deadline)
                self.feed(ev.DeadlineReached())
            else:
                return
        raise AssertionError("there is no end to it")


def _words_within(text: str, ms: int) -> list[str]:
    """The words of a text that were spoken completely."""
    words, letters = text.split(), 0
    for n, word in enumerate(words):
        letters += len(word)
        if letters * MS_PER_LETTER > ms:
            return words[:n]
    return words


OPS = st.lists(
    st.tuples(
        st.sampled_from(
            [*["write"] * 6, *["sound"] * 8, "done", "done", "speak", "interrupt", "text", "text", "wait", "fail"]
        ),
        st.integers(0, 6),
    ),
    min_size=10,
    max_size=80,
)


@given(ops=OPS, times=st.booleans(), fallback=st.booleans())
@settings(max_examples=150, deadline=None)
def test_the_history_is_what_was_heard_and_every_turn_ends(
    ops: list[tuple[str, int]], times: bool, fallback: bool
) -> None:
    talk = Conversation(times, fallback)
    talk.feed(ev.UserText("hello"))
    for what, a in ops:
        talk.act(what, a)
    talk.finish()
    turns = talk.session.turns
    assert turns.responses.slot.is_free
    assert not turns.user.typed_turns
    assert talk.open_ends == 0, "every response that began is told to have ended"
    assert True not in talk.clips.values(), "every clip that began has ended"
    assert not turns.tts.is_speaking
    talk.check_history()
