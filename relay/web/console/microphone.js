/** The microphone as 20 ms frames of PCM16, with the browser's echo and noise suppression and gain control. */

import { Resampler, toInt16 } from "./pcm.js";
import { addWorklet } from "./worklets.js";

const FRAME_MS = 20;

const CONSTRAINTS = {
  audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 },
};

/** The page was left, or the microphone closed, while the browser was still asking. */
export class MicrophoneAborted extends Error {
  name = "MicrophoneAborted";
}

export class Microphone {
  #onFrame;
  #onLost;
  /** @type {MediaStream | null} */
  #stream = null;
  /** @type {AudioContext | null} one of our own, where the shared one cannot take the microphone */
  #ownContext = null;
  /** @type {AudioNode[]} */
  #nodes = [];
  /** @type {AnalyserNode | null} */
  #analyser = null;
  #muted = false;
  #rateHz = 24000;
  #resampler = new Resampler(1, 1);
  /** Converted samples that do not yet fill a frame. */
  #rest = new Float32Array(0);
  /** Changes with every start and stop, so that a start overtaken by a stop notices. */
  #generation = 0;

  /**
   * @param {object} callbacks
   * @param {(pcm: ArrayBuffer) => void} callbacks.onFrame  one frame, PCM16 little-endian mono
   * @param {() => void} callbacks.onLost                   the device went away
   */
  constructor({ onFrame, onLost }) {
    this.#onFrame = onFrame;
    this.#onLost = onLost;
  }

  get active() {
    return this.#analyser !== null;
  }

  /** Reads the current waveform for drawing; null when closed. */
  get analyser() {
    return this.#analyser;
  }

  get muted() {
    return this.#muted;
  }

  /** Muted, the frames go on as silence and the browser shows the microphone as off. */
  set muted(muted) {
    this.#muted = muted;
    for (const track of this.#stream?.getAudioTracks() ?? []) track.enabled = !muted;
  }

  /** The rate of the frames handed out. @param {number} rateHz */
  setRate(rateHz) {
    this.#rateHz = rateHz;
    if (this.#analyser !== null) this.#resampler = new Resampler(this.#analyser.context.sampleRate, rateHz);
  }

  /**
   * Asks for the microphone and starts.
   *
   * @param {AudioContext} context
   * @throws {DOMException} as getUserMedia does; MicrophoneAborted if stop() came first; WorkletMissing
   */
  async start(context) {
    const generation = ++this.#generation;
    if (navigator.mediaDevices === undefined) throw new DOMException("insecure page", "SecurityError");
    const stream = await navigator.mediaDevices.getUserMedia(CONSTRAINTS);
    if (generation !== this.#generation) {
      for (const track of stream.getTracks()) track.stop();
      throw new MicrophoneAborted();
    }
    this.#stream = stream;
    this.muted = this.#muted;
    stream.getAudioTracks()[0].onended = () => this.#onLost();
    await this.#connect(context, stream, generation);
  }

  stop() {
    this.#generation++;
    for (const node of this.#nodes.splice(0)) node.disconnect();
    for (const track of this.#stream?.getTracks() ?? []) {
      track.onended = null;
      track.stop();
    }
    this.#ownContext?.close();
    this.#ownContext = this.#stream = this.#analyser = null;
    this.#rest = new Float32Array(0);
  }

  /** @param {AudioContext} shared @param {MediaStream} stream @param {number} generation */
  async #connect(shared, stream, generation) {
    const source = this.#source(shared, stream);
    const context = source.context;
    await addWorklet(context, "./capture-worklet.js");
    if (generation !== this.#generation) throw new MicrophoneAborted();
    const frameSamples = Math.round((context.sampleRate * FRAME_MS) / 1000);
    const worklet = new AudioWorkletNode(context, "relay-capture", { processorOptions: { frameSamples } });
    const analyser = new AnalyserNode(context, { fftSize: 1024 });
    worklet.port.onmessage = ({ data }) => {
      if (generation === this.#generation) this.#convert(data);
    };
    // The worklet's output is silence; it is connected because a browser need not run what leads nowhere.
    source.connect(analyser).connect(worklet).connect(context.destination);
    this.#nodes = [source, analyser, worklet];
    this.#analyser = analyser;
    this.setRate(this.#rateHz);
  }

  /** @param {AudioContext} shared @param {MediaStream} stream */
  #source(shared, stream) {
    try {
      return new MediaStreamAudioSourceNode(shared, { mediaStream: stream });
    } catch (error) {
      if (/** @type {DOMException} */ (error).name !== "NotSupportedError") throw error;
      // Firefox takes a microphone only at the device's own rate.
      this.#ownContext = new AudioContext({ latencyHint: "interactive" });
      return new MediaStreamAudioSourceNode(this.#ownContext, { mediaStream: stream });
    }
  }

  /** @param {Float32Array} captured */
  #convert(captured) {
    const converted = this.#resampler.feed(captured);
    const samples = new Float32Array(this.#rest.length + converted.length);
    samples.set(this.#rest);
    samples.set(converted, this.#rest.length);
    const frameSamples = Math.round((this.#rateHz * FRAME_MS) / 1000);
    let at = 0;
    for (; at + frameSamples <= samples.length; at += frameSamples) {
      this.#onFrame(/** @type {ArrayBuffer} */ (toInt16(samples.subarray(at, at + frameSamples)).buffer));
    }
    this.#rest = samples.slice(at);
  }
}
