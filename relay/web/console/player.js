/** Plays answers item by item, and reports how much of each was really played. */

import { Resampler, toFloat } from "./pcm.js";
import { addWorklet } from "./worklets.js";

/** The longest answer that may wait; the relay sends about a second ahead, so only a faulty one gets there. */
const MAX_QUEUED_MS = 30_000;
/** Head start of an item, so that the first hiccup of the network is not heard. */
const PRIME_MS = 40;
const REPORT_MS = 200;
/** Shorter than one render quantum of 128 samples at 24 kHz. */
const FADE_MS = 5;
/** How long the audio thread may take to report the final position. */
const STOP_TIMEOUT_MS = 100;
/** What a rate conversion may round off an item. */
const ROUNDING_MS = 3;

/** @typedef {{itemId: string | null, playedMs: number, droppedMs: number}} Stopped */

export class Player {
  #onPlayback;
  #onPlaying;
  #onOverflow;
  /** @type {Promise<void> | null} */
  #starting = null;
  /** @type {AudioContext | null} */
  #context = null;
  /** @type {AudioWorkletNode | null} */
  #worklet = null;
  /** @type {AnalyserNode | null} */
  #analyser = null;
  #resampler = new Resampler(1, 1);
  #rateHz = 24000;
  #playing = false;
  /** Length of items that were sent whole and have not ended. @type {Map<string, number>} */
  #totalsMs = new Map();
  /** @type {((stopped: Stopped) => void)[]} */
  #stopping = [];

  /**
   * @param {object} callbacks
   * @param {(itemId: string, playedMs: number) => void} callbacks.onPlayback  every 200 ms of an item and at its
   *     end; after stop() once more, with the final position
   * @param {(playing: boolean) => void} callbacks.onPlaying
   * @param {() => void} callbacks.onOverflow  the queue is full; what came last was dropped
   */
  constructor({ onPlayback, onPlaying, onOverflow }) {
    this.#onPlayback = onPlayback;
    this.#onPlaying = onPlaying;
    this.#onOverflow = onOverflow;
  }

  get playing() {
    return this.#playing;
  }

  /** Reads the current waveform for drawing; null before start. */
  get analyser() {
    return this.#analyser;
  }

  /**
   * Makes ready, once. On a page that is not secure browsers have no audio worklets: then nothing will be played.
   *
   * @param {AudioContext} context
   * @throws {import("./worklets.js").WorkletMissing}  call it again to try again
   */
  start(context) {
    this.#starting ??= this.#start(context).catch((error) => {
      this.#starting = null;
      throw error;
    });
    return this.#starting;
  }

  /** @param {AudioContext} context */
  async #start(context) {
    if (context.audioWorklet === undefined) return;
    await addWorklet(context, "./playback-worklet.js");
    this.#context = context;
    /** @param {number} ms */
    const frames = (ms) => Math.round((context.sampleRate * ms) / 1000);
    const worklet = new AudioWorkletNode(context, "relay-playback", {
      numberOfInputs: 0,
      outputChannelCount: [1],
      processorOptions: {
        maxQueuedFrames: frames(MAX_QUEUED_MS),
        primeFrames: frames(PRIME_MS),
        reportFrames: frames(REPORT_MS),
        fadeFrames: Math.min(frames(FADE_MS), 128),
      },
    });
    this.#analyser = new AnalyserNode(context, { fftSize: 1024 });
    worklet.port.onmessage = ({ data }) => this.#receive(data);
    worklet.connect(this.#analyser).connect(context.destination);
    this.#worklet = worklet;
    this.setRate(this.#rateHz);
  }

  /** The rate of the audio that will be pushed. @param {number} rateHz */
  setRate(rateHz) {
    this.#rateHz = rateHz;
    if (this.#context !== null) this.#resampler = new Resampler(rateHz, this.#context.sampleRate);
  }

  /** Queues audio of an item. @param {string} itemId @param {ArrayBuffer} pcm PCM16 little-endian mono */
  push(itemId, pcm) {
    const samples = this.#resampler.feed(toFloat(pcm));
    this.#worklet?.port.postMessage({ type: "audio", itemId, samples }, [samples.buffer]);
  }

  /** No more audio of this item follows. @param {string} itemId @param {number} totalMs */
  end(itemId, totalMs) {
    if (this.#worklet === null) return;
    this.#totalsMs.set(itemId, totalMs);
    this.#worklet.port.postMessage({ type: "end", itemId });
  }

  /**
   * Falls silent and empties the queue, at once; resolves with where the playing item stopped, after onPlayback
   * has reported it.
   *
   * @returns {Promise<Stopped>}  itemId null if nothing was playing or the audio thread did not answer in time
   */
  stop() {
    this.#totalsMs.clear();
    const { promise, resolve } = Promise.withResolvers();
    if (this.#worklet === null) return Promise.resolve({ itemId: null, playedMs: 0, droppedMs: 0 });
    this.#stopping.push(resolve);
    this.#worklet.port.postMessage({ type: "stop" });
    setTimeout(() => resolve({ itemId: null, playedMs: 0, droppedMs: 0 }), STOP_TIMEOUT_MS);
    return promise;
  }

  /** @param {any} message from the worklet */
  #receive({ type, itemId, frames, dropped, queued }) {
    const ms = this.#ms(frames ?? 0);
    if (type === "started") this.#setPlaying(true);
    else if (type === "progress") this.#onPlayback(itemId, ms);
    else if (type === "ended") this.#ended(itemId, ms, queued);
    else if (type === "stopped") this.#stopped({ itemId, playedMs: ms, droppedMs: this.#ms(dropped) });
    else if (type === "overflow") this.#onOverflow();
  }

  /** @param {string} itemId @param {number} playedMs @param {boolean} more whether another item follows at once */
  #ended(itemId, playedMs, more) {
    const totalMs = this.#totalsMs.get(itemId) ?? playedMs;
    this.#totalsMs.delete(itemId);
    this.#onPlayback(itemId, Math.abs(totalMs - playedMs) <= ROUNDING_MS ? totalMs : playedMs);
    this.#setPlaying(more);
  }

  /** @param {Stopped} stopped */
  #stopped(stopped) {
    if (stopped.itemId !== null) this.#onPlayback(stopped.itemId, stopped.playedMs);
    this.#setPlaying(false);
    this.#stopping.shift()?.(stopped);
  }

  /** @param {boolean} playing */
  #setPlaying(playing) {
    if (playing === this.#playing) return;
    this.#playing = playing;
    this.#onPlaying(playing);
  }

  /** @param {number} frames rounded down: a position beyond what was sent would be an error */
  #ms(frames) {
    return this.#context === null ? 0 : Math.floor((frames * 1000) / this.#context.sampleRate);
  }
}
