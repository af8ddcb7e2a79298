/**
 * One session with the relay as events: no DOM, no audio devices, usable from any page.
 *
 *     const client = new RelayClient(new WebSocketTransport(relaySocketUrl(24000)));
 *     client.addEventListener("textDelta", ({ detail }) => console.log(detail.text));
 *     await client.open();
 *     client.sendText("Hello");
 *
 * To connect again, make another. Events are CustomEvents. Those of the relay carry its message as `detail`:
 * connected, ready, speechStart, speechEnd, responseStart, responseEnd, textDelta, audioStart, audioEnd,
 * interrupted, transcript, tool, usage, latency, error, goodbye. Those of this side: state {state, previous},
 * audio {itemId, pcm}, congested {bytes}, fault {message}, closed Ending.
 *
 * @typedef {"idle" | "connecting" | "ready" | "talking" | "closed"} State
 * @typedef {import("./protocol.js").Session} Session
 * @typedef {object} Ending
 * @property {number} code         WebSocket close code; 1006 when the connection vanished or was never made
 * @property {string} reason
 * @property {boolean} opened      whether the connection had been made
 * @property {boolean} connected   whether the session had begun
 * @property {boolean} byUser      whether this side ended it
 * @property {import("./protocol.js").RelayError | null} error  the relay's last error: usually the reason
 */

import { decode, hello } from "./protocol.js";
import { TransportError } from "./transport.js";

/** @type {Record<State, State[]>} */
const TRANSITIONS = {
  idle: ["connecting", "closed"],
  connecting: ["ready", "closed"],
  ready: ["talking", "closed"], // talking: microphone audio has been sent
  talking: ["closed"],
  closed: [],
};

/** The session ended before it began. */
export class SessionEnded extends Error {
  /** @param {Ending} ending */
  constructor(ending) {
    super(ending.error?.message ?? (ending.reason || `The session ended before it began (${ending.code}).`));
    this.name = "SessionEnded";
    this.ending = ending;
  }
}

export class RelayClient extends EventTarget {
  #transport;
  #hello;
  #connectTimeoutMs;
  #maxHeldBytes;
  /** @type {State} */
  #state = "idle";
  /** @type {Session | null} */
  #session = null;
  /** @type {import("./protocol.js").RelayError | null} */
  #lastError = null;
  /** Microphone audio from before the session began. @type {ArrayBuffer[]} */
  #held = [];
  #heldBytes = 0;
  /** The item whose audio is arriving. @type {string | null} */
  #itemId = null;
  /** The last item that was stopped: its audio is discarded. @type {string | null} */
  #stoppedItemId = null;
  /** @type {PromiseWithResolvers<Session> | null} */
  #opening = null;

  /**
   * @param {import("./transport.js").Transport} transport
   * @param {object} [options]
   * @param {number} [options.rateHz]             16000, 24000 or 48000, both ways
   * @param {number | null} [options.maxAheadMs]  audio the relay may send ahead of what is played; null: no limit
   * @param {object} [options.hello]              further fields of the hello: voice, instructions, language, turn
   * @param {number} [options.connectTimeoutMs]   how long the session may take to begin
   * @param {number} [options.maxHeldMs]          microphone audio kept meanwhile; when full, the oldest is dropped
   */
  constructor(transport, options = {}) {
    super();
    const { rateHz = 24000, maxAheadMs = 1000, connectTimeoutMs = 15_000, maxHeldMs = 3000 } = options;
    this.#transport = transport;
    this.#hello = hello(rateHz, maxAheadMs, options.hello ?? {});
    this.#connectTimeoutMs = connectTimeoutMs;
    this.#maxHeldBytes = (maxHeldMs * rateHz * 2) / 1000;
    transport.onMessage = (message) => this.#receive(message);
    transport.onAudio = (pcm) => this.#receiveAudio(pcm);
    transport.onClose = (closing) => this.#end(closing);
  }

  get state() {
    return this.#state;
  }

  /** What the relay sent when the session began. */
  get session() {
    return this.#session;
  }

  /** Connects; resolves once the session has begun, rejects with SessionEnded if it ends before. */
  async open() {
    this.#enter("connecting");
    const { promise, resolve, reject } = Promise.withResolvers();
    this.#opening = { promise, resolve, reject };
    const timer = setTimeout(() => this.#timeOut(), this.#connectTimeoutMs);
    this.#dial().catch(reject);
    return promise.finally(() => clearTimeout(timer));
  }

  /** Sends microphone audio: PCM16 little-endian mono at the input rate, up to 64 KiB. @param {ArrayBuffer} pcm */
  sendAudio(pcm) {
    if (this.#state === "closed") return;
    if (this.#state === "ready") this.#enter("talking");
    if (this.#state !== "talking") this.#hold(pcm);
    else if (!this.#transport.sendAudio(pcm)) this.#emit("congested", { bytes: pcm.byteLength });
  }

  /** A typed turn. @param {string} text */
  sendText(text) {
    this.#transport.sendMessage({ type: "text", text });
  }

  /** Reports how much of an item has left the speaker. @param {string} itemId @param {number} playedMs cumulative */
  reportPlayback(itemId, playedMs) {
    this.#transport.sendMessage({ type: "playback", itemId, playedMs: Math.floor(playedMs) });
  }

  /** Ends the user's turn, in manual mode (push-to-talk). */
  commit() {
    this.#transport.sendMessage({ type: "commit" });
  }

  /** Discards the rest of the answer that is arriving. */
  dropAudio() {
    this.#stoppedItemId = this.#itemId ?? this.#stoppedItemId;
    this.#itemId = null;
  }

  /** Stops the answer. Report the final playback first: the relay then cuts exactly there. */
  interrupt() {
    this.dropAudio();
    this.#transport.sendMessage({ type: "interrupt" });
  }

  /** Ends the session. */
  close() {
    if (this.#state === "closed") return;
    this.#transport.sendMessage({ type: "bye" });
    this.#transport.close(1000, "");
    this.#end({ code: 1000, reason: "", opened: true }, true);
  }

  async #dial() {
    try {
      await this.#transport.open();
    } catch (error) {
      if (!(error instanceof TransportError)) throw error;
      this.#end(error.closing);
      return;
    }
    this.#transport.sendMessage(this.#hello);
  }

  #timeOut() {
    this.#transport.close(1000, "");
    this.#end({ code: 1006, reason: "The relay did not answer in time.", opened: true });
  }

  /** @param {ArrayBuffer} pcm */
  #hold(pcm) {
    this.#held.push(pcm);
    this.#heldBytes += pcm.byteLength;
    while (this.#heldBytes > this.#maxHeldBytes) this.#heldBytes -= this.#held.shift()?.byteLength ?? 0;
  }

  /** @param {unknown} message */
  #receive(message) {
    if (this.#state === "closed") return;
    const decoded = decode(message);
    if (decoded.kind === "fault") this.#emit("fault", { message });
    if (decoded.kind !== "event") return;
    const { name, detail } = decoded;
    if (name === "connected") this.#begin(detail);
    else if (this.#track(name, detail)) this.#emit(name, detail);
  }

  /**
   * Tracks which item is arriving; false for a message of an item that was stopped.
   *
   * @param {string} name
   * @param {any} detail
   */
  #track(name, detail) {
    if (name === "error") this.#lastError = detail;
    if (name === "interrupted") {
      this.#stoppedItemId = detail.itemId;
      this.#itemId = null;
    }
    if (name === "audioStart" && detail.itemId !== this.#stoppedItemId) this.#itemId = detail.itemId;
    if (name === "audioStart" || name === "audioEnd") {
      if (detail.itemId !== this.#itemId) return false;
      if (name === "audioEnd") this.#itemId = null;
    }
    return true;
  }

  /** @param {ArrayBuffer} pcm */
  #receiveAudio(pcm) {
    if (this.#state === "closed" || this.#itemId === null) return;
    this.#emit("audio", { itemId: this.#itemId, pcm });
  }

  /** @param {Session} session */
  #begin(session) {
    if (this.#state !== "connecting") return;
    this.#session = session;
    this.#enter("ready");
    this.#emit("connected", session);
    this.#opening?.resolve(session);
    for (const pcm of this.#held.splice(0)) this.sendAudio(pcm);
  }

  /** @param {import("./transport.js").Closing} closing @param {boolean} [byUser] */
  #end(closing, byUser = false) {
    if (this.#state === "closed") return;
    const ending = { ...closing, byUser, connected: this.#session !== null, error: this.#lastError };
    this.#held = [];
    this.#enter("closed");
    this.#emit("closed", ending);
    this.#opening?.reject(new SessionEnded(ending)); // of no effect once the session has begun
  }

  /** @param {State} state */
  #enter(state) {
    const previous = this.#state;
    if (!TRANSITIONS[previous].includes(state))
      throw new Error(`A session cannot go from ${previous} to ${state}.`);
    this.#state = state;
    this.#emit("state", { state, previous });
  }

  /** @param {string} name @param {object} detail */
  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
