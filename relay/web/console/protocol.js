/**
 * The device protocol, version 1, as data: what each message of the relay must carry, and its name on this side.
 *
 * @typedef {{format: string, rate: number}} Format
 * @typedef {{sessionId: string, protocol: number, input: Format, output: Format}} Session
 * @typedef {{code: string, message: string, field?: string, retryable?: boolean}} RelayError
 * @typedef {{kind: "event", name: string, detail: any} | {kind: "fault" | "unknown"}} Decoded
 */

import { TOTAL } from "./turn-metrics.js";

export const PROTOCOL_VERSION = 1;

/** The fields, with their types, without which a message is ignored; other fields are kept. */
const MESSAGES = {
  textDelta: { text: "string" },
  audioStart: { itemId: "string" },
  audioEnd: { itemId: "string", totalMs: "number" },
  interrupted: { itemId: "string", playedMs: "number", heardText: "string" },
  transcript: { role: "string", itemId: "string", order: "number", text: "string", final: "boolean" },
  tool: { callId: "string", name: "string", status: "string" },
  ready: { input: "format", output: "format" },
  usage: { totalTokens: "number" },
  latency: { itemId: "string", [TOTAL.wire]: "number" },
  error: { code: "string", message: "string" },
  goodbye: { reason: "string" },
};

/** The messages of type "event": the name they get here, and their fields. */
const NAMED = {
  AIConnected: ["connected", { sessionId: "string", input: "format", output: "format" }],
  AISpeechDetected: ["speechStart", {}],
  AISpeechEnded: ["speechEnd", {}],
  AIResponseStart: ["responseStart", {}],
  AIResponseEnd: ["responseEnd", { finalText: "string", status: "string", more: "boolean" }],
};

/** Every event a RelayClient can pass on from the relay. */
export const RELAY_EVENTS = [
  ...Object.values(NAMED).map(([name]) => /** @type {string} */ (name)),
  ...Object.keys(MESSAGES),
];

/** @param {any} value @param {string} type  of typeof, or "format": PCM16 at a rate that audio can have */
function isA(value, type) {
  if (type !== "format") return typeof value === type;
  return value?.format === "pcm16" && Number.isInteger(value.rate) && value.rate >= 8000 && value.rate <= 48000;
}

/** @param {Record<string, any>} message @param {Record<string, string>} shape */
function fits(message, shape) {
  return Object.entries(shape).every(([field, type]) => isA(message[field], type));
}

/**
 * Reads one message. A type that is not known is "unknown": a newer relay sent it, which is not an error; one that lacks what
 * it must carry is a "fault".
 *
 * @param {any} message  as JSON gave it, whatever that is
 * @returns {Decoded}
 */
export function decode(message) {
  if (typeof message?.type !== "string") return { kind: "fault" };
  const isNamed = message.type === "event";
  const table = isNamed ? NAMED : MESSAGES;
  const key = isNamed ? message.name : message.type;
  if (!Object.hasOwn(table, key)) return { kind: "unknown" };
  const [name, shape] = isNamed ? table[key] : [key, table[key]];
  return fits(message, shape) ? { kind: "event", name, detail: message } : { kind: "fault" };
}

/**
 * @param {number} rateHz @param {number | null} maxAheadMs
 * @param {object} extra  voice, instructions, language, turn
 */
export function hello(rateHz, maxAheadMs, extra) {
  const format = { format: "pcm16", rate: rateHz };
  return { type: "hello", v: PROTOCOL_VERSION, input: format, output: format, maxAheadMs, ...extra };
}
