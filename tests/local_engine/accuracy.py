"""Print the accuracy of recognition as a table: `python -m tests.local_engine.accuracy`.

The speakers are four synthetic voices, the sentences are those of the shipped tools. The figures do not apply to human
speakers.
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
    """The grammar of a session with the shipped tools."""
    specs = tool_specs(ToolRegistry(load_folder(SHIPPED).tools))
    return Grammar([spec.definition(with_examples=True) for spec in specs])


def speech(sentence: str, voice: str, noise_db: float | None = None) -> bytes:
    """Return a sentence between silences, at 16 kHz, with white noise `noise_db` below the voice."""
    pcm, _, _ = flite.synthesize(sentence, voice, 1.0)
    samples = np.concatenate([np.zeros(3200), np.frombuffer(pcm, dtype="<i2").astype(float), np.zeros(8000)])
    if noise_db is not None:
        level = np.sqrt((samples[3200:-8000] ** 2).mean()) / 10 ** (noise_db / 20)
        samples += np.random.default_rng(1).normal(0, level, len(samples))
    return samples.clip(-32768, 32767).astype("<i2").tobytes()


def recognize(recognizer: Recognizer, pcm: bytes, cepstral_mean: str | None = None) -> RecognitionResult:
    """Recognize a clip; `cepstral_mean` is that of the same microphone."""
    recognizer.start(cepstral_mean)
    for start in range(0, len(pcm), 1024):
        recognizer.feed(pcm[start : start + 1024])
    return finished(recognizer.finish())


def finished(work: Generator[None, None, RecognitionResult]) -> RecognitionResult:
    """Run a generator to its return value."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: RecognitionResult = end.value
            return result


def understood(
    recognizer: Recognizer, voice: str, sentences: tuple[str, ...] | list[str], noise_db: float | None = None
) -> Iterator[bool]:
    """Yield whether each sentence was understood correctly, all over one microphone."""
    cepstral_mean = None
    for sentence in sentences:
        result = recognize(recognizer, speech(sentence, voice, noise_db), cepstral_mean)
        cepstral_mean = recognizer.cepstral_mean
        meant = recognizer.grammar.parse(sentence, strict=True)
        yield result.text is not None and recognizer.grammar.parse(result.text, strict=True) == meant


@dataclass(frozen=True)
class Row:
    """The results of one voice at one noise level, as shares of 1."""

    voice: str
    noise_db: float | None
    accepted: float
    rejected: float
    missed: tuple[str, ...]


def measure(recognizer: Recognizer, voice: str, noise_db: float | None) -> Row:
    """Measure all sentences in one voice."""
    right = list(understood(recognizer, voice, KNOWN, noise_db))
    cepstral_mean = recognizer.cepstral_mean
    rejected = [
        recognize(recognizer, speech(sentence, voice, noise_db), cepstral_mean).text is None for sentence in UNKNOWN
    ]
    missed = tuple(sentence for sentence, ok in zip(KNOWN + UNKNOWN, [*right, *rejected], strict=True) if not ok)
    return Row(voice, noise_db, sum(right) / len(right), sum(rejected) / len(rejected), missed)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--noise", type=float, nargs="*", default=[20.0], help="noise levels in dB below the voice, besides no noise"
    )
    parser.add_argument("--missed", action="store_true", help="also print the sentences with a wrong result")
    arguments = parser.parse_args()
    recognizer = Recognizer(shipped_grammar())
    print(f"{len(KNOWN)} sentences of the shipped tools, {len(UNKNOWN)} unknown ones\n")
    print("| noise | voice | understood | unknown rejected |\n|---|---|---|---|")
    for noise_db in (None, *arguments.noise):
        rows = [measure(recognizer, voice, noise_db) for voice in VOICES]
        label = "none" if noise_db is None else f"{noise_db:g} dB"
        for row in rows:
            print(f"| {label} | {row.voice} | {row.accepted:.1%} | {row.rejected:.1%} |", flush=True)
            if arguments.missed:
                print("".join(f"    {sentence}\n" for sentence in row.missed), end="")
        accepted = sum(row.accepted for row in rows) / len(rows)
        rejected = sum(row.rejected for row in rows) / len(rows)
        print(f"| {label} | all | **{accepted:.1%}** | **{rejected:.1%}** |")


if __name__ == "__main__":
    main()
