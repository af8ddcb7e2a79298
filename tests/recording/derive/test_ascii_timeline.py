"""The conversation in the terminal."""

from pathlib import Path

from relay.recording.derive.ascii_timeline import render
from relay.recording.derive.timeline_builder import build_timeline
from relay.recording.derive.webvtt import render_webvtt
from relay.recording.store.reader import Recording
from relay.session.device import events as ev
from tests.support.scripted_recordings import conversation, make_recording


def test_who_spoke_when_what_was_called_and_how_long_it_took(tmp_path: Path) -> None:
    lines = list(render(build_timeline(Recording(make_recording(tmp_path))).timeline, 100))
    text = "\n".join(lines)
    you, relay, tools = (next(line for line in lines if line.startswith(label)) for label in ("you", "relay", "tools"))
    assert you.index("█") == 8 + 6
    assert relay.index("█") == 8 + 21
    assert "✂" in relay
    assert tools.index("▪") == 8 + 16
    assert 'tool     clock {"city":"Rome"} done in 50 ms → {"time":"noon"}' in text
    assert "✂ after 0.8 s; unheard: noon in Rome, and" in text
    assert "latency   p50 " in text
    assert "p95 " in text
    assert "tokens    30 in, 15 out" in text


def test_nothing_that_a_terminal_would_interpret_gets_through(tmp_path: Path) -> None:
    events = [*conversation()[:-1], (3.9, ev.UserTranscript("item_v", "\x1b[2J\x07bye", True))]
    text = "".join(render(build_timeline(Recording(make_recording(tmp_path, events))).timeline))
    assert "\x1b" not in text
    assert "bye" in text


def test_a_cue_holds_no_markup_of_its_own(tmp_path: Path) -> None:
    forged = "a <b>\n\n00:00.000 --> 00:09.000\r\r<v Assistant>no\u2028\u2028 & \x1b[2J\x9b"
    events = [*conversation()[:-1], (3.9, ev.UserTranscript("item_v", forged, True))]
    text = render_webvtt(build_timeline(Recording(make_recording(tmp_path, events))).timeline)
    assert "<v User>a &lt;b&gt; 00:00.000 --&gt; 00:09.000 &lt;v Assistant&gt;no &amp; \\x1b[2J\\x9b\n" in text
    assert text.count("-->") == text.count("<v ") == 3
