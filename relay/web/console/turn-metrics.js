/** The figures of a turn, in ms. Written by scripts/regenerate from relay/session/device/turn_metrics.py. */

/** @typedef {{wire: string, name: string, label: string, labelAtClient: string, sign: string, meaning: string}} Figure */

/** @type {Figure} */
export const TOTAL = {
  "wire": "totalMs",
  "name": "total_ms",
  "label": "total",
  "labelAtClient": "total",
  "sign": "+",
  "meaning": "From the end of the user's speech until the first audio was sent to the client's socket."
};

/** In order; the parts of a step are shown in its place where they are known. @type {(Figure & {parts: Figure[]})[]} */
export const STEPS = [
  {
    "wire": "speechStoppedMs",
    "name": "speech_stopped_ms",
    "label": "speech end noticed",
    "labelAtClient": "speech end noticed",
    "sign": "+",
    "meaning": "From the end of the user's speech until the upstream reported it.",
    "parts": []
  },
  {
    "wire": "firstDeltaMs",
    "name": "first_delta_ms",
    "label": "first audio from the model",
    "labelAtClient": "first audio from the model",
    "sign": "+",
    "meaning": "From the upstream's report, or the end of a turn without speech, until the first audio of the answer arrived.",
    "parts": [
      {
        "wire": "firstTextMs",
        "name": "first_text_ms",
        "label": "first text from the model",
        "labelAtClient": "first text from the model",
        "sign": "+",
        "meaning": "With an external voice: the model's part of `firstDeltaMs`, to its first text."
      },
      {
        "wire": "voiceMs",
        "name": "voice_ms",
        "label": "first audio from the voice",
        "labelAtClient": "first audio from the voice",
        "sign": "+",
        "meaning": "With an external voice: its part of `firstDeltaMs`, from the first text to the first audio."
      }
    ]
  },
  {
    "wire": "firstByteMs",
    "name": "first_byte_ms",
    "label": "to the client",
    "labelAtClient": "first audio here",
    "sign": "+",
    "meaning": "From the first audio of the answer until it was sent to the client's socket.",
    "parts": []
  },
  {
    "wire": "firstPlayedMs",
    "name": "first_played_ms",
    "label": "played",
    "labelAtClient": "first played",
    "sign": "+",
    "meaning": "From the client's socket until the speaker played it, as the client reports by `playback`.",
    "parts": []
  },
  {
    "wire": "bargeInMs",
    "name": "barge_in_ms",
    "label": "barge-in to silence",
    "labelAtClient": "barge-in to silence",
    "sign": "",
    "meaning": "From the start of speech that interrupted the assistant until `interrupted` was sent.",
    "parts": []
  }
];
