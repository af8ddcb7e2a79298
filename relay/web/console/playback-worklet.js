/**
 * On the audio thread: plays what is queued, counts what was really played, and falls silent on request.
 *
 * In:  {type: "audio", itemId, samples: Float32Array} · {type: "end", itemId} · {type: "stop"}
 * Out: {type: "started", itemId} · {type: "progress", itemId, frames} · {type: "ended", itemId, frames, queued} ·
 *      {type: "stopped", itemId, frames, dropped} · {type: "overflow", dropped}
 * `frames` counts samples of that item that went to the speaker, at the context's rate.
 *
 * @typedef {{itemId: string, samples: Float32Array | null}} Entry  samples null: the item ends here
 */

class PlaybackProcessor extends AudioWorkletProcessor {
  #options;
  /** @type {Entry[]} */
  #queue = [];
  #queuedFrames = 0;
  /** Samples of the first entry already played. */
  #offset = 0;
  /** @type {{itemId: string, frames: number, reported: number} | null} */
  #item = null;
  /** Whether enough is queued to play without a gap. */
  #primed = false;
  #waitedFrames = 0;
  /** What is left to play of a fade-out. @type {Float32Array | null} */
  #fade = null;

  /**
   * @param {{processorOptions: {[name in "maxQueuedFrames" | "primeFrames" | "reportFrames" | "fadeFrames"]: number}}}
   *     options  bound of the queue (beyond it new audio is dropped and reported), head start before an item plays,
   *     distance of two progress reports, length of the fade-out
   */
  constructor({ processorOptions }) {
    super();
    this.#options = processorOptions;
    this.port.onmessage = ({ data }) => this.#receive(data);
  }

  /** @param {{type: string, itemId: string, samples: Float32Array}} message */
  #receive({ type, itemId, samples }) {
    if (type === "audio") this.#enqueue(itemId, samples);
    if (type === "end") {
      this.#queue.push({ itemId, samples: null });
      this.#primed = true;
    }
    if (type === "stop") this.#stop();
  }

  /** @param {string} itemId @param {Float32Array} samples */
  #enqueue(itemId, samples) {
    if (this.#queuedFrames + samples.length > this.#options.maxQueuedFrames) {
      this.port.postMessage({ type: "overflow", dropped: samples.length });
      return;
    }
    this.#queue.push({ itemId, samples });
    this.#queuedFrames += samples.length;
  }

  /**
   * Moves the next samples into `out`; returns how many, fewer than it holds if the queue ran dry.
   *
   * @param {Float32Array} out
   */
  #take(out) {
    let at = 0;
    while (at < out.length && this.#queue.length > 0) {
      const { itemId, samples } = this.#queue[0];
      const item = this.#item?.itemId === itemId ? this.#item : this.#begin(itemId);
      if (samples === null) {
        this.#finish(item);
        continue;
      }
      const part = samples.subarray(this.#offset, this.#offset + out.length - at);
      out.set(part, at);
      at += part.length;
      this.#offset += part.length;
      this.#queuedFrames -= part.length;
      item.frames += part.length;
      if (this.#offset === samples.length) this.#shift();
    }
    return at;
  }

  #shift() {
    this.#queue.shift();
    this.#offset = 0;
  }

  /** @param {string} itemId */
  #begin(itemId) {
    this.port.postMessage({ type: "started", itemId });
    return (this.#item = { itemId, frames: 0, reported: 0 });
  }

  /** @param {{itemId: string, frames: number}} item */
  #finish({ itemId, frames }) {
    this.#shift();
    this.port.postMessage({ type: "ended", itemId, frames, queued: this.#queue.length > 0 });
    this.#item = null;
    this.#primed = this.#queue.length > 0;
  }

  /** Empties the queue now; a few milliseconds fade out instead of breaking off, which would click. */
  #stop() {
    this.#fade = this.#item === null ? null : this.#fadeOut(this.#item);
    const { itemId = null, frames = 0 } = this.#item ?? {};
    this.port.postMessage({ type: "stopped", itemId, frames, dropped: this.#queuedFrames });
    this.#queue = [];
    this.#queuedFrames = 0;
    this.#offset = 0;
    this.#item = null;
    this.#primed = false;
    this.#waitedFrames = 0;
  }

  /**
   * The next samples of the playing item, falling to zero; they count as played.
   *
   * @param {{itemId: string, frames: number}} item
   */
  #fadeOut(item) {
    const head = this.#queue[0];
    if (head?.itemId !== item.itemId || head.samples === null) return null;
    const fade = head.samples.slice(this.#offset, this.#offset + this.#options.fadeFrames);
    for (let i = 0; i < fade.length; i++) fade[i] *= 1 - (i + 1) / fade.length;
    item.frames += fade.length;
    this.#queuedFrames -= fade.length;
    return fade;
  }

  /**
   * Whether to play now: with a head start of a few frames, or after having waited as long for it.
   *
   * @param {number} quantum
   */
  #ready(quantum) {
    if (this.#queue.length === 0) return false;
    if (!this.#primed) {
      this.#waitedFrames += quantum;
      const enough = Math.max(this.#queuedFrames, this.#waitedFrames) >= this.#options.primeFrames;
      if (!enough) return false;
      this.#primed = true;
    }
    this.#waitedFrames = 0;
    return true;
  }

  /** @param {Float32Array[][]} _inputs @param {Float32Array[][]} outputs */
  process(_inputs, [[out]]) {
    if (this.#fade !== null) {
      out.set(this.#fade.subarray(0, out.length));
      this.#fade = null;
      return true;
    }
    if (this.#ready(out.length)) {
      if (this.#take(out) < out.length) this.#primed = false;
      this.#report();
    }
    return true;
  }

  #report() {
    const item = this.#item;
    const { reportFrames } = this.#options;
    if (item === null || item.frames - item.reported < reportFrames) return;
    item.reported = item.frames - (item.frames % reportFrames);
    this.port.postMessage({ type: "progress", itemId: item.itemId, frames: item.frames });
  }
}

registerProcessor("relay-playback", PlaybackProcessor);
