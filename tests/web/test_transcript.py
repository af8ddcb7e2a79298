"""The order of the transcript, whatever order its messages come in."""

from typing import Any

import pytest
from playwright.async_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

RUN = """async (calls) => {
    const { Transcript } = await import('/static/transcript.js');
    const transcript = new Transcript();
    for (const [method, ...args] of calls) transcript[method](...args);
    return transcript.entries.map(e => {
        const mark = e.heard ? `|${e.heard.text}` : e.status ? `|${e.status}` : e.done ? '' : '…';
        return `${e.kind === 'speech' ? e.role : e.kind}: ${e.tool ? e.tool.name : e.text}${mark}`;
    });
}"""

Call = list[Any]


def user(item: str, order: int, text: str, *, final: bool = True) -> Call:
    return ["transcript", {"role": "user", "itemId": item, "order": order, "text": text, "final": final}]


def assistant(item: str, order: int, text: str) -> Call:
    return ["transcript", {"role": "assistant", "itemId": item, "order": order, "text": text, "final": True}]


def delta(text: str) -> Call:
    return ["answerDelta", text]


def audio(item: str) -> Call:
    return ["answerAudio", item]


def ended(text: str = "", status: str = "completed") -> Call:
    return ["answerEnded", {"finalText": text, "status": status, "more": False}]


def cut(item: str, heard: str) -> Call:
    return ["interrupted", {"itemId": item, "playedMs": 400, "heardText": heard}]


def tool(call: str, name: str, status: str = "done") -> Call:
    return ["tool", {"callId": call, "name": name, "status": status, "ms": 5}]


SPEECH: list[Call] = [["speechStarted"], ["speechEnded"]]

CASES: dict[str, tuple[list[Call], list[str]]] = {
    "the words come after the answer they caused": (
        [*SPEECH, delta("Hi."), assistant("b", 2, "Hi."), ended(), user("a", 1, "Hello")],
        ["user: Hello", "assistant: Hi."],
    ),
    "the same without speech events (turns by hand)": (
        [delta("Hi."), user("a", 1, "Hello"), assistant("b", 2, "Hi."), ended()],
        ["user: Hello", "assistant: Hi."],
    ),
    "late words go before the tools they caused": (
        [tool("c", "clock"), delta("Noon."), assistant("d", 5, "Noon."), user("a", 1, "What time is it?")],
        ["user: What time is it?", "tool: clock", "assistant: Noon."],
    ),
    "a preamble, a tool, an answer": (
        [
            *SPEECH,
            delta("Let me see."),
            assistant("b", 2, "Let me see."),
            ended(),
            tool("c", "clock", "started"),
            tool("c", "clock"),
            delta("No"),
            delta("on."),
            user("a", 1, "Time?"),
        ],
        ["user: Time?", "assistant: Let me see.", "tool: clock", "assistant: Noon.…"],
    ),
    "two turns whose words both come late, in the wrong order": (
        [
            *SPEECH,
            delta("One."),
            assistant("b", 2, "One."),
            ended(),
            *SPEECH,
            delta("Two."),
            assistant("d", 4, "Two."),
            ended(),
            user("c", 3, "Second"),
            user("a", 1, "First"),
        ],
        ["user: First", "assistant: One.", "user: Second", "assistant: Two."],
    ),
    "two turns whose words both come late, in the right order": (
        [
            *SPEECH,
            delta("One."),
            assistant("b", 2, "One."),
            ended(),
            *SPEECH,
            delta("Two."),
            assistant("d", 4, "Two."),
            ended(),
            user("a", 1, "First"),
            user("c", 3, "Second"),
        ],
        ["user: First", "assistant: One.", "user: Second", "assistant: Two."],
    ),
    "the same, and the answers' finals after them": (
        [
            *SPEECH,
            delta("One."),
            audio("b"),
            ended(),
            *SPEECH,
            delta("Two."),
            audio("d"),
            ended(),
            user("a", 1, "First"),
            assistant("d", 4, "Two."),
            assistant("b", 2, "One."),
            user("c", 3, "Second"),
        ],
        ["user: First", "assistant: One.", "user: Second", "assistant: Two."],
    ),
    "an answer that was shown before what came first": (
        [delta("B"), audio("b"), ended(), user("c", 3, "Later"), assistant("b", 4, "B")],
        ["user: Later", "assistant: B"],
    ),
    "an interrupted answer that is never named by a final": (
        [
            *SPEECH,
            user("a", 1, "Count"),
            audio("b"),
            delta("One two three"),
            ["speechStarted"],
            cut("b", "One"),
            ended(status="cancelled"),
            ["speechEnded"],
            user("c", 3, "Stop"),
        ],
        ["user: Count", "assistant: One two three|One", "user: Stop"],
    ),
    "a final that holds only what was heard leaves the rest on show": (
        [audio("b"), delta("One two three"), cut("b", "One"), assistant("b", 2, "One")],
        ["assistant: One two three|One"],
    ),
    "audio long after its text does not name the next answer": (
        [delta("A"), assistant("a", 1, "A"), delta("B"), audio("a"), audio("b"), assistant("b", 2, "B")],
        ["assistant: A", "assistant: B"],
    ),
    "deltas of the user grow, the final replaces them": (
        [["speechStarted"], user("a", 1, "wether", final=False), user("a", 1, " today", final=False)],
        ["user: wether today…"],
    ),
    "noise leaves nothing": ([*SPEECH, user("a", 1, " "), *SPEECH, ["speechStarted"]], ["user: …"]),
    "an echo of a typed turn names it": ([["typed", "Hello"], user("a", 1, "Hello")], ["user: Hello"]),
    "an answer without text or item leaves nothing": ([audio("a"), ended()], []),
    "a text-only answer that only the end tells": ([audio("a"), ended("Done.")], ["assistant: Done."]),
    "a failed response says so": ([delta("Well"), ended(status="failed")], ["assistant: Well|failed"]),
    "item ids and orders begin anew with a session": (
        [user("a", 7, "Before"), ["beginSession", "—"], ["beginSession", "New"], delta("Now"), user("a", 0, "After")],
        ["user: Before", "divider: New", "user: After", "assistant: Now…"],
    ),
    "what was only begun is closed at the end": (
        [["speechStarted"], delta("Half"), ["endSession"]],
        ["assistant: Half"],
    ),
}


async def test_the_transcript_is_in_the_order_of_the_conversation(page: Page) -> None:
    for name, (calls, expected) in CASES.items():
        assert await page.evaluate(RUN, calls) == expected, name


async def test_the_transcript_is_bounded(page: Page) -> None:
    calls = [["typed", str(i)] for i in range(450)] + [delta("x" * 9000)] * 3
    entries = await page.evaluate(RUN, calls)
    assert len(entries) == 400
    assert entries[0] == "user: 51"
    assert len(entries[-1]) == len("assistant: …") + 20_000
