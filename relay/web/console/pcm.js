/** PCM16 and float samples, and a streaming converter between sample rates. */

/** @param {Float32Array} samples  −1..1; beyond is clipped @returns {Int16Array} */
export function toInt16(samples) {
  const out = new Int16Array(samples.length);
  for (let i = 0; i < samples.length; i++) {
    out[i] = Math.round(Math.max(-1, Math.min(32767 / 32768, samples[i])) * 32768);
  }
  return out;
}

/** @param {ArrayBuffer} pcm  PCM16 little-endian; an odd last byte is left out @returns {Float32Array} */
export function toFloat(pcm) {
  const samples = new Int16Array(pcm, 0, pcm.byteLength >> 1);
  const out = new Float32Array(samples.length);
  for (let i = 0; i < samples.length; i++) out[i] = samples[i] / 32768;
  return out;
}

/** Zero crossings of the sinc on each side of its centre. */
const CROSSINGS = 16;

/** Part of the lower Nyquist frequency that is kept: leaves the filter room to fall before it. */
const PASSBAND = 0.92;

/** @param {number} a @param {number} b @returns {number} */
const gcd = (a, b) => (b === 0 ? a : gcd(b, a % b));

/**
 * Converts a stream between two sample rates with a windowed sinc (Blackman), one table row per phase.
 *
 * Only for browsers whose context has another rate than the session. Delay: 16 samples of the lower rate,
 * under 1 ms at 24 kHz.
 */
export class Resampler {
  #step;
  #phases;
  #halfWidth;
  #scale;
  /** @type {Float32Array[]} rows of the filter, made when first needed */
  #rows = [];
  #tail;
  #phase = 0;

  /** @param {number} sourceHz @param {number} targetHz whole numbers */
  constructor(sourceHz, targetHz) {
    const divisor = gcd(sourceHz, targetHz);
    this.#step = sourceHz / divisor;
    this.#phases = targetHz / divisor;
    this.#scale = Math.min(1, targetHz / sourceHz) * PASSBAND;
    this.#halfWidth = Math.ceil(CROSSINGS / this.#scale);
    this.#tail = new Float32Array(2 * this.#halfWidth - 1);
  }

  /**
   * Takes the next samples, and returns what can be computed so far.
   *
   * @param {Float32Array} input
   * @returns {Float32Array}
   */
  feed(input) {
    if (this.#step === this.#phases) return input;
    const width = 2 * this.#halfWidth;
    const data = new Float32Array(this.#tail.length + input.length);
    data.set(this.#tail);
    data.set(input, this.#tail.length);
    const windows = Math.max(0, data.length - width + 1); // starts at which a whole filter fits
    const count = Math.max(0, Math.ceil((windows * this.#phases - this.#phase) / this.#step));
    const out = new Float32Array(count);
    for (let i = 0; i < count; i++) {
      const row = this.#row(this.#phase % this.#phases);
      const start = Math.floor(this.#phase / this.#phases);
      let sum = 0;
      for (let k = 0; k < width; k++) sum += data[start + k] * row[k];
      out[i] = sum;
      this.#phase += this.#step;
    }
    this.#phase -= windows * this.#phases;
    this.#tail = data.slice(windows);
    return out;
  }

  /** @param {number} phase */
  #row(phase) {
    return (this.#rows[phase] ??= this.#makeRow(phase / this.#phases));
  }

  /** The filter for an output that falls `offset` of a sample after the centre. @param {number} offset */
  #makeRow(offset) {
    const half = this.#halfWidth;
    const row = new Float32Array(2 * half);
    let sum = 0;
    for (let k = 0; k < row.length; k++) {
      const t = k - (half - 1) - offset;
      const x = Math.PI * t * this.#scale;
      const turn = (Math.PI * t) / half;
      const window = Math.abs(t) < half ? 0.42 + 0.5 * Math.cos(turn) + 0.08 * Math.cos(2 * turn) : 0;
      row[k] = (Math.abs(x) < 1e-9 ? 1 : Math.sin(x) / x) * window;
      sum += row[k];
    }
    return row.map((weight) => weight / sum); // exactly unity gain at 0 Hz, whatever the phase
  }
}
