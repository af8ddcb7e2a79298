"""Character timings of synthesized speech, from word times or estimated from the letters."""

from relay.local_engine.speech.tts_flite import WordTimes
from relay.local_engine.speech.tts_text import to_plain_ascii


def char_timings(text: str, word_times: WordTimes | None, total_ms: float) -> tuple[list[str], list[int], list[int]]:
    """Return the characters with their starts and durations in ms: a word's time is divided by its letters."""
    words = text.split()
    word_spans = _word_spans(words, word_times, total_ms)
    starts_ms, durations_ms, word_index, position, end_ms = [], [], -1, 0, 0.0
    for index, char in enumerate(text):
        if char.isspace():
            starts_ms.append(round(end_ms))
            durations_ms.append(0)
            continue
        if index == 0 or text[index - 1].isspace():
            word_index, position = word_index + 1, 0
        word_start_ms, word_end_ms = word_spans[word_index]
        letter_ms = (word_end_ms - word_start_ms) / len(words[word_index])
        starts_ms.append(round(word_start_ms + position * letter_ms))
        position += 1
        end_ms = word_start_ms + position * letter_ms
        durations_ms.append(max(round(end_ms) - starts_ms[-1], 0))
    return list(text), starts_ms, durations_ms


def _word_spans(words: list[str], word_times: WordTimes | None, total_ms: float) -> WordTimes:
    """Return a span for each word of the text; a word may be none or several of the synthesized ones."""
    n_spoken_words = [len(to_plain_ascii(word).split()) for word in words]
    if word_times is None or sum(n_spoken_words) != len(word_times):
        word_times, n_spoken_words = _times_by_letters(words, total_ms), [1] * len(words)
    spans, n_used, end_ms = [], 0, 0.0
    for count in n_spoken_words:
        times = word_times[n_used : n_used + count]
        n_used += count
        start_ms = times[0][0] if times else end_ms
        end_ms = max(end_ms, times[-1][1]) if times else end_ms
        spans.append((start_ms, end_ms))
    return spans


def _times_by_letters(words: list[str], total_ms: float) -> WordTimes:
    n_letters = sum(map(len, words)) or 1
    times, start_ms = [], 0.0
    for word in words:
        end_ms = start_ms + total_ms * len(word) / n_letters
        times.append((start_ms, end_ms))
        start_ms = end_ms
    return times
