"""How well spoken sentences are told apart, as a table: `python -m tests.local_engine.accuracy`.

The speakers are four synthetic voices, the sentences those of the shipped tools; of people's voices this says nothing.
"""

import argparse
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from relay.app.toolbox import tool_specs
from relay.local_engine.nlu.grammar import Grammar
from relay.local_engine.speech import tts_flite as flite
from relay.local_engine.speech.recognizer import RecognitionResult, Recognizer
from relay.toolkit.registry import ToolRegistry
from tests.support.tool_folders import load_folder

VOICES = ("slt", "rms", "kal16", "awb")
SHIPPED = Path(__file__).parents[2] / "tools"
KNOWN = (
    "what time is it in tokyo",
    "what time is it in new york",
    "how late is it in berlin",
    "what is the time in los angeles",
    "tell me the time in london",
    "roll a die",
    "roll the dice",
    "roll two dice",
    "roll six dice with twenty sides",
    "roll three dice please",
    "convert five miles to kilometers",
    "convert ten pounds to kilograms",
    "how many feet are three meters",
    "how many ounces are two pounds",
    "what is twenty celsius in fahrenheit",
    "convert two point five gallons to liters",
    "roll two dice and tell me the time in paris",
    "what time is it in rome and roll a die",
    "please roll four dice",
    "can you tell me the time in sydney",
    "what can you do",
    "tell me a long story",
    "thank you",
    "stop",
)
UNKNOWN = (
    "where is my phone",
    "play some music by the beatles",
    "the quick brown fox jumps over the lazy dog",
    "set an alarm for seven",
    "turn off the lights in the kitchen",
    "send an email to john",
    "i think this does not work",
    "can i have a glass of water",
    "open the garage door",
    "call my mother",
    "my brother went to the market yesterday",
    "how do i bake a chocolate cake",
    "the train leaves from platform nine",
    "could you close the window please",
    "she has never been to the mountains",
    "remind me to water the plants",
    "who won the football game last night",
    "i would like a table for two",
    "this is only a test of the microphone",
    "do you know a good restaurant nearby",
)


def shipped_grammar() -> Grammar:
    """What a session with the shipped tools listens for."""
    specs = tool_specs(ToolRegistry(load_folder(SHIPPED).tools))
    return Grammar([spec.definition(with_examples=True) for spec in specs])


def said(sentence: str, voice: str, noise_db: float | None = None) -> bytes:
    """A sentence between silences, 16 kHz; with white noise so many dB under the voice."""
    pcm, _, _ = flite.synthesise(sentence, voice, 1.0)
    samples = np.concatenate([np.zeros(3200), np.frombuffer(pcm, dtype="<i2").astype(float), np.zeros(8000)])
    if noise_db is not None:
        level = np.sqrt((samples[3200:-8000] ** 2).mean()) / 10 ** (noise_db / 20)
        samples += np.random.default_rng(1).normal(0, level, len(samples))
    return samples.clip(-32768, 32767).astype("<i2").tobytes()


def heard(recogniser: Recognizer, pcm: bytes, sound: str | None = None) -> RecognitionResult:
    """What the recogniser makes of it; `sound` is what it knows of the microphone."""
    recogniser.start(sound)
    for start in range(0, len(pcm), 1024):
        recogniser.feed(pcm[start : start + 1024])
    return finished(recogniser.finish())


def finished(work: Generator[None, None, RecognitionResult]) -> RecognitionResult:
    """The result of a generator."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: RecognitionResult = end.value
            return result


def understood(
    recogniser: Recognizer, voice: str, sentences: tuple[str, ...] | list[str], noise_db: float | None = None
) -> Iterator[bool]:
    """Whether each sentence was understood as meant, all over one microphone."""
    sound = None
    for sentence in sentences:
        result = heard(recogniser, said(sentence, voice, noise_db), sound)
        sound = recogniser.cepstral_mean
        meant = recogniser.grammar.parse(sentence, strict=True)
        yield result.text is not None and recogniser.grammar.parse(result.text, strict=True) == meant


@dataclass(frozen=True)
class Row:
    """One voice under one condition: shares of 1."""

    voice: str
    noise_db: float | None
    kept: float
    refused: float
    missed: tuple[str, ...]


def measure(recogniser: Recognizer, voice: str, noise_db: float | None) -> Row:
    """All sentences by one voice."""
    right = list(understood(recogniser, voice, KNOWN, noise_db))
    sound = recogniser.cepstral_mean
    refused = [heard(recogniser, said(sentence, voice, noise_db), sound).text is None for sentence in UNKNOWN]
    missed = tuple(sentence for sentence, ok in zip(KNOWN + UNKNOWN, [*right, *refused], strict=True) if not ok)
    return Row(voice, noise_db, sum(right) / len(right), sum(refused) / len(refused), missed)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--noise", type=float, nargs="*", default=[20.0], help="dB under the voice, beside clean")
    parser.add_argument("--missed", action="store_true", help="also print what went wrong")
    arguments = parser.parse_args()
    recogniser = Recognizer(shipped_grammar())
    print(f"{len(KNOWN)} sentences of the shipped tools, {len(UNKNOWN)} unknown ones\n")
    print("| noise | voice | understood | unknown refused |\n|---|---|---|---|")
    for noise_db in (None, *arguments.noise):
        rows = [measure(recogniser, voice, noise_db) for voice in VOICES]
        label = "none" if noise_db is None else f"{noise_db:g} dB"
        for row in rows:
            print(f"| {label} | {row.voice} | {row.kept:.1%} | {row.refused:.1%} |", flush=True)
            if arguments.missed:
                print("".join(f"    {sentence}\n" for sentence in row.missed), end="")
        kept = sum(row.kept for row in rows) / len(rows)
        refused = sum(row.refused for row in rows) / len(rows)
        print(f"| {label} | all | **{kept:.1%}** | **{refused:.1%}** |")


if __name__ == "__main__":
    main()
