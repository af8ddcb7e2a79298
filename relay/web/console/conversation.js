/**
 * One conversation after another on this machine's microphone and loudspeaker: RelayClient, Microphone and Player
 * wired together. Still no DOM.
 *
 * Passes on every event of the client, and adds: activity {activity} · microphone {active, muted} ·
 * audioError {error}, of microphone or loudspeaker · playing {playing} · overflow.
 *
 * @typedef {"off" | "connecting" | "listening" | "waiting" | "hearing" | "thinking" | "speaking"} Activity
 *     listening: the microphone is open · waiting: connected without it · hearing: the user speaks
 */

import { RelayClient, SessionEnded } from "./client.js";
import { Microphone, MicrophoneAborted } from "./microphone.js";
import { Player } from "./player.js";
import { RELAY_EVENTS } from "./protocol.js";

const RATE_HZ = 24000;
/** How long "thinking" lasts without another event: the speech may have been noise that gets no answer. */
const THINKING_MS = 15_000;

export class Conversation extends EventTarget {
  #makeTransport;
  /** @type {RelayClient | null} */
  #client = null;
  /** @type {AudioContext | null} */
  #context = null;
  /** Resolves when the session has begun (true) or ended before (false). @type {Promise<boolean>} */
  #begun = Promise.resolve(false);
  #asking = false;
  #hearing = false;
  #thinking = false;
  /** @type {number | undefined} */
  #thinkingTimer;
  /** @type {Activity} */
  #activity = "off";

  /** @param {(rateHz: number) => import("./transport.js").Transport} makeTransport called once per session */
  constructor(makeTransport) {
    super();
    this.#makeTransport = makeTransport;
    this.microphone = new Microphone({
      onFrame: (pcm) => this.#client?.sendAudio(pcm),
      onLost: () => this.#loseMicrophone(),
    });
    this.player = new Player({
      onPlayback: (itemId, playedMs) => this.#client?.reportPlayback(itemId, playedMs),
      onPlaying: (playing) => {
        this.#update();
        this.#emit("playing", { playing });
      },
      onOverflow: () => this.#emit("overflow", {}),
    });
  }

  /** Whether there is a session, or one is being made. */
  get open() {
    return this.#client !== null;
  }

  /** Whether the microphone is in use, or being asked for. */
  get talking() {
    return this.#asking || this.microphone.active;
  }

  get activity() {
    return this.#activity;
  }

  /** Opens the microphone, and a session if there is none. Errors are events, here and below. */
  async talk() {
    this.#setAsking(true);
    try {
      await this.microphone.start(await this.#audio());
    } catch (error) {
      if (error instanceof MicrophoneAborted) return;
      this.#setAsking(false);
      this.microphone.stop();
      this.#emit("audioError", { error });
      return;
    }
    this.#connect();
    this.#setAsking(false);
    this.#emitMicrophone();
  }

  /** Opens a session without microphone, if there is none; true once it has begun. */
  async connect() {
    try {
      await this.#audio();
    } catch (error) {
      this.#emit("audioError", { error });
      return false;
    }
    this.#connect();
    return this.#begun;
  }

  /** Sends a typed turn; false if there is no session. @param {string} text */
  async type(text) {
    if (!(await this.connect()) || this.#client === null) return false;
    this.#client.sendText(text);
    this.#setThinking(true);
    return true;
  }

  /** Stops the answer: silences the player at once, then reports the exact position to the relay. */
  async interrupt() {
    const client = this.#client;
    client?.dropAudio();
    await this.player.stop();
    client?.interrupt();
    this.#setThinking(false);
  }

  /** Ends the user's turn, in manual mode. */
  commit() {
    this.#client?.commit();
    this.#setThinking(true);
  }

  /** @param {boolean} muted */
  mute(muted) {
    this.microphone.muted = muted;
    this.#emitMicrophone();
  }

  /** Ends the session and closes the microphone. */
  end() {
    this.microphone.stop();
    this.#client?.close();
    this.#setAsking(false);
    this.#emitMicrophone();
  }

  /** Wakes the audio after the system has suspended it. */
  async resume() {
    await this.#context?.resume();
  }

  /** The audio context, running. Call it first in a user's gesture: browsers allow audio only then. */
  async #audio() {
    this.#context ??= makeContext();
    await this.#context.resume();
    await this.player.start(this.#context);
    return this.#context;
  }

  /** The session's client; a new session if there is none. */
  #connect() {
    if (this.#client !== null) return this.#client;
    const client = new RelayClient(this.#makeTransport(RATE_HZ), { rateHz: RATE_HZ });
    this.#client = client;
    for (const name of [...RELAY_EVENTS, "state", "congested", "fault", "audio", "closed"]) {
      client.addEventListener(name, (event) => {
        const { detail } = /** @type {CustomEvent} */ (event);
        this.#follow(name, detail);
        this.#emit(name, detail);
        this.#update();
      });
    }
    this.#begun = client.open().then(
      () => true,
      (error) => {
        if (!(error instanceof SessionEnded)) throw error;
        return false; // the "closed" event has the reason
      },
    );
    return client;
  }

  /** @param {string} name @param {any} detail */
  #follow(name, detail) {
    switch (name) {
      case "connected":
      case "ready":
        this.microphone.setRate(detail.input.rate);
        this.player.setRate(detail.output.rate);
        break;
      case "audio":
        this.player.push(detail.itemId, detail.pcm);
        break;
      case "audioEnd":
        this.player.end(detail.itemId, detail.totalMs);
        break;
      case "interrupted":
        this.player.stop();
        break;
      case "closed":
        this.#leave();
        break;
      default:
        this.#followTurn(name, detail);
    }
  }

  /** Tracks whose turn it is. @param {string} name @param {any} detail */
  #followTurn(name, detail) {
    if (name === "speechStart" || name === "speechEnd") this.#hearing = name === "speechStart";
    if (name === "speechStart") this.#setThinking(false);
    if (["speechEnd", "responseStart", "textDelta", "tool"].includes(name)) this.#setThinking(true);
    if (name === "responseEnd") this.#setThinking(detail.more);
    if (name === "error") this.#setThinking(false);
  }

  async #leave() {
    this.#client = null;
    this.#hearing = false;
    this.#setThinking(false);
    this.microphone.stop();
    this.#emitMicrophone();
    await this.player.stop();
    if (!this.open && !this.talking) await this.#context?.suspend(); // releases the audio devices
  }

  #loseMicrophone() {
    this.microphone.stop();
    this.#emitMicrophone();
    this.#emit("audioError", { error: new DOMException("unplugged", "NotReadableError") });
  }

  /** @param {boolean} asking */
  #setAsking(asking) {
    this.#asking = asking;
    this.#update();
  }

  /** @param {boolean} thinking */
  #setThinking(thinking) {
    clearTimeout(this.#thinkingTimer);
    this.#thinking = thinking;
    if (thinking) this.#thinkingTimer = setTimeout(() => this.#setThinking(false), THINKING_MS);
    this.#update();
  }

  #emitMicrophone() {
    this.#emit("microphone", { active: this.microphone.active, muted: this.microphone.muted });
    this.#update();
  }

  /** @returns {Activity} */
  #currentActivity() {
    if (this.#asking || this.#client?.state === "connecting") return "connecting";
    if (this.#client === null) return "off";
    if (this.#hearing) return "hearing";
    if (this.player.playing) return "speaking";
    if (this.#thinking) return "thinking";
    return this.microphone.active ? "listening" : "waiting";
  }

  #update() {
    const activity = this.#currentActivity();
    if (activity === this.#activity) return;
    this.#activity = activity;
    this.#emit("activity", { activity });
  }

  /** @param {string} name @param {object} detail */
  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** A context at the session's rate; where the browser refuses that, at the device's: Player and Microphone convert. */
function makeContext() {
  try {
    return new AudioContext({ sampleRate: RATE_HZ, latencyHint: "interactive" });
  } catch (error) {
    if (/** @type {DOMException} */ (error).name !== "NotSupportedError") throw error;
    return new AudioContext({ latencyHint: "interactive" });
  }
}
