"""Joins an external voice to playback, items and responses, and corrects the history after a barge-in (D9, D2.4).

The text of a response goes sentence by sentence to `Voice`. The utterance that is first in line is announced with
`PlayStart`; its end is `PlayEnd`. The end of a response that was not announced yet is held back until then, so that the
client knows that audio follows.

Speech outlives its response: all text has come long before the last of it is played. After a barge-in `hush` closes the
context, the client reports what it played, and `cut` notes what was heard of each item. `rewrite` then deletes each
such item and creates it again as far as it was heard, because an item of text cannot be truncated. An item of the
active response waits until that response is done. What a silenced response writes later is neither spoken nor kept.

When the voice fails, the rest of the turn stays text, and the client is sent one `voice_failed`. `is_given_up` makes
the turns use the model's own voice from the next turn on, if the settings name one.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple, assert_never

from relay.session.common.bounded_set import RecentSet
from relay.session.common.model import Item
from relay.session.device import events as ev
from relay.session.device.commands import (
    Command,
    CreateItem,
    DeleteItem,
    PlayEnd,
    PlayStart,
    TellError,
    TellResponseEnd,
)
from relay.session.device.conversation import ItemLog
from relay.session.device.playback import Cut, Playback
from relay.session.tts.alignment import Utterance
from relay.session.tts.stream import MAX_UTTERANCES, Voice


class Rewrite(NamedTuple):
    """An item that is to hold no more than was heard of it, as soon as its response has ended."""

    response_id: str
    heard: str


class ExternalSpeech:
    """Joins a `Voice` to playback, items and responses of a session; commands go to `emit`."""

    def __init__(
        self,
        voice: Voice,
        playback: Playback,
        items: ItemLog,
        emit: Callable[[Command], None],
        next_id: Callable[[], str],
    ) -> None:
        self.voice = voice
        self.has_failed = False
        """Whether something of this turn could not be spoken."""
        self.is_given_up = False
        """Whether another voice is to speak from the next turn on, if there is one."""
        self._playback = playback
        self._items = items
        self._emit = emit
        self._next_id = next_id
        self._said: dict[tuple[str, int], Utterance] = {}
        self._silenced: dict[tuple[str, int], Utterance] = {}
        self._rewrites: dict[str, Rewrite] = {}
        self._unheard = RecentSet(MAX_UTTERANCES)
        self._mute = RecentSet(MAX_UTTERANCES)
        self._held_ends: dict[str, TellResponseEnd] = {}

    # -- time ---------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Do what has become due."""
        due = self.voice.due(now)
        if isinstance(due, ev.VoiceFinished):
            self.finished(due.context_id, now)
        elif due is not None:
            self.failed(due, now)

    def new_turn(self, now: float) -> None:
        """The user has the word: the voice is going to be needed."""
        if not self.voice.utterances:
            self.has_failed = False
            self.voice.forgive()
            self.voice.warm(now)

    # -- words --------------------------------------------------------------------------------------------------------

    def text(self, event: ev.TextDelta, now: float) -> None:
        """More of what the model writes."""
        if event.spoken or event.response_id in self._mute:
            return
        self.voice.add(event, now)
        self._proceed(now)

    def part_done(self, response_id: str, now: float) -> None:
        """All text of one item has come."""
        self.voice.part_done(response_id, now)
        self._proceed(now)

    def response_done(self, event: ev.ResponseDone, now: float) -> None:
        """All text of a response has come. What a silenced one wrote without being heard leaves the history."""
        if event.response_id in self._unheard:
            for item in event.output:
                if item.kind == "message" and item.id:
                    self._rewrites.setdefault(item.id, Rewrite(event.response_id, ""))
        self.voice.end(event.response_id, now)
        self._proceed(now)

    def holds(self, response_id: str, end: TellResponseEnd) -> bool:
        """Keep the end of a response back until its sound is announced: its client must know that there is more."""
        utterance = self.voice.find(response_id)
        if utterance is None or utterance.started:
            return False
        self._held_ends[response_id] = end
        return True

    def _proceed(self, now: float) -> None:
        """Announce the utterance that is first now; if it is known that it cannot be spoken, say so."""
        refusal = self.voice.refused()
        if self.voice.utterances and not self.voice.utterances[0].started:
            head = self.voice.utterances[0]
            head.started = True
            self._playback.start(*head.key, head.response_id, source="tts")
            self._items.entry(head.key[0])
            self._emit(PlayStart(*head.key))
            self._release(head)
        if refusal is not None:
            self._fail(refusal)

    def _release(self, utterance: Utterance) -> None:
        held = self._held_ends.pop(utterance.response_id, None)
        if held is not None:
            self._emit(held)

    # -- sound --------------------------------------------------------------------------------------------------------

    def handle(self, event: ev.VoiceEvent, now: float) -> Utterance | None:
        """Something that the voice said. Returns the utterance that has new sound."""
        match event:
            case ev.VoiceOpened():
                self.voice.opened(now)
            case ev.VoiceSpoke():
                utterance = self.voice.spoke(event, now)
                return utterance if event.n_bytes else None
            case ev.VoiceFinished(context_id):
                self.finished(context_id, now)
            case ev.VoiceFailed():
                self.failed(event, now)
            case _:
                assert_never(event)
        return None

    def finished(self, context_id: str, now: float) -> None:
        """A context is closed: the sound of what it said is complete."""
        ended = self.voice.finished(context_id)
        if isinstance(ended, ev.VoiceFailed):
            self.failed(ended, now)
            return
        if ended is not None:
            self._end_clip(ended)
            if ended.audio_bytes:
                if len(self._said) >= MAX_UTTERANCES:
                    del self._said[next(iter(self._said))]
                self._said[ended.key] = ended
        self._proceed(now)
        self.voice.pump(now)

    def failed(self, event: ev.VoiceFailed, now: float) -> None:
        """The voice broke; nothing of that is told while nothing was to be said."""
        failure = self.voice.failed(event, now)
        if failure is not None:
            self._fail(failure)

    def retry(self) -> None:
        """No other voice can speak in place of this one."""
        self.is_given_up = False

    def _fail(self, failure: ev.VoiceFailed) -> None:
        """Whatever was to be spoken stays text, and the client is told so once a turn."""
        dropped = self.voice.give_up()
        for utterance in dropped:
            self._mute.add(utterance.response_id)
            if utterance.started:
                self._end_clip(utterance)
            self._release(utterance)
        if not self.has_failed:
            self.has_failed = self.is_given_up = True
            code = f" ({failure.code})" if failure.code else ""
            message = f"The voice failed{code}: {failure.message} The answer goes on as text."
            self._emit(TellError("voice_failed", message, retryable=failure.retryable))

    def _end_clip(self, utterance: Utterance) -> None:
        total_ms = self._playback.completed(*utterance.key)
        if not utterance.audio_bytes:
            self._playback.clips.pop(utterance.key, None)  # it has no audio after all
        if total_ms is not None:
            self._emit(PlayEnd(*utterance.key, total_ms))

    # -- silence ------------------------------------------------------------------------------------------------------

    def hush(self, response_id: str | None) -> None:
        """Nothing more is to be heard: of what is being said, and of a response that is under way."""
        if response_id is not None and response_id not in self._mute:  # what failed was read, if not heard
            self._unheard.add(response_id)
            self._mute.add(response_id)
        for utterance in self.voice.hush():
            self._mute.add(utterance.response_id)
            self._silenced[utterance.key] = utterance
            self._release(utterance)

    def doomed(self, response_id: str) -> None:
        """A response that was given up before it began: nothing of it is ever heard."""
        self._unheard.add(response_id)

    def heard(self, cut: Cut) -> str | None:
        """What was heard of a clip; None if it is none of a voice that told its text."""
        key = (cut.item_id, cut.content_index)
        utterance = self._silenced.get(key) or self._said.get(key)
        return None if utterance is None else _heard(utterance, cut)

    def cut(self, cuts: Iterable[Cut]) -> None:
        """The client is silent: note what of each item was heard."""
        clips = {(cut.item_id, cut.content_index): cut for cut in cuts}
        for key, utterance in {**self._said, **self._silenced}.items():
            cut = clips.get(key)
            if cut is None and key in self._said:
                continue  # played to its end long ago
            heard = _heard(utterance, cut) if cut is not None else ""
            for item_id, whole, told in utterance.heard_by_item(heard):
                self._items.entry(item_id).heard = told
                if told != whole or not utterance.complete:
                    self._rewrites[item_id] = Rewrite(utterance.response_id, told)
        self._said.clear()
        self._silenced.clear()

    def rewrite(self, active: str | None) -> None:
        """Make the history say what was heard, but for items of the `active` response, which may still grow."""
        for item_id, rewrite in list(self._rewrites.items()):
            if rewrite.response_id == active:
                continue
            del self._rewrites[item_id]
            entry = self._items.entry(item_id)
            if not entry.in_conversation:
                continue
            self._emit(DeleteItem(item_id, self._next_id()))
            if rewrite.heard:
                event_id, new_id = self._next_id(), self._next_id()
                after = self._items.replace(item_id, new_id, rewrite.heard)
                item = Item(new_id, "message", "assistant", text=rewrite.heard)
                self._emit(CreateItem(item, event_id, after))
            else:
                entry.in_conversation = False


def _heard(utterance: Utterance, cut: Cut) -> str:
    """What was heard of an utterance; all of it, if its clip was played to its end."""
    if cut.action == "keep":
        return utterance.text
    return utterance.spoken.heard(cut.played_ms, cut.received_ms, finished=utterance.finished)
