/** On the audio thread: cuts the microphone into frames of 20 ms and hands each to the page. */

class CaptureProcessor extends AudioWorkletProcessor {
  #frame;
  #filled = 0;

  /** @param {{processorOptions: {frameSamples: number}}} options */
  constructor({ processorOptions }) {
    super();
    this.#frame = new Float32Array(processorOptions.frameSamples);
  }

  /** @param {Float32Array[][]} inputs */
  process([channels], [output]) {
    // A source that has gone quiet has no channels; silence goes on, since the relay's ear runs on audio time.
    const samples = channels[0] ?? new Float32Array(output[0].length);
    let taken = 0;
    while (taken < samples.length) {
      const part = samples.subarray(taken, taken + this.#frame.length - this.#filled);
      this.#frame.set(part, this.#filled);
      this.#filled += part.length;
      taken += part.length;
      if (this.#filled === this.#frame.length) this.#handOver();
    }
    return true;
  }

  #handOver() {
    const frame = this.#frame;
    this.#frame = new Float32Array(frame.length);
    this.#filled = 0;
    this.port.postMessage(frame, [frame.buffer]);
  }
}

registerProcessor("relay-capture", CaptureProcessor);
