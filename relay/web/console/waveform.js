/** Live waveforms: bars that are born beside the button and drift outwards. */

const BAR_MS = 45;
const BAR_WIDTH = 3;
const BAR_GAP = 3;
const MAX_BARS = 240;
/** With reduced motion the picture changes this seldom, and does not drift. */
const CALM_REDRAW_MS = 500;

/**
 * Loudness of what an analyser hears now, 0..1, spread so that quiet speech shows.
 *
 * @param {AnalyserNode | null} analyser
 */
export function levelOf(analyser) {
  if (analyser === null) return 0;
  const samples = new Float32Array(analyser.fftSize);
  analyser.getFloatTimeDomainData(samples);
  let peak = 0;
  for (const sample of samples) peak = Math.max(peak, Math.abs(sample));
  return peak < 0.002 ? 0 : Math.min(1, Math.sqrt(peak));
}

export class Waveform {
  #canvas;
  #context;
  #direction;
  #readLevel;
  /** Newest first. */
  #bars = new Float32Array(MAX_BARS);
  #rising = 0;
  #bornAt = 0;

  /**
   * @param {HTMLCanvasElement} canvas  its CSS colour is the colour of the bars
   * @param {1 | -1} direction          1: bars drift to the right
   * @param {() => number} readLevel    loudness now, 0..1
   */
  constructor(canvas, direction, readLevel) {
    this.#canvas = canvas;
    this.#context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    this.#direction = direction;
    this.#readLevel = readLevel;
  }

  /** Whether anything but rest is to be seen. */
  get lively() {
    return this.#rising > 0 || this.#bars.some((bar) => bar > 0);
  }

  /** @param {number} nowMs */
  sample(nowMs) {
    this.#rising = Math.max(this.#rising, this.#readLevel());
    const births = Math.min(MAX_BARS, Math.floor((nowMs - this.#bornAt) / BAR_MS));
    if (births < 1) return;
    this.#bars.copyWithin(births, 0);
    this.#bars.fill(0, 0, births); // a page that was hidden shows a gap, not a wall
    this.#bars[0] = this.#rising;
    this.#rising = 0;
    this.#bornAt = births === MAX_BARS ? nowMs : this.#bornAt + births * BAR_MS;
  }

  /** @param {number} nowMs @param {boolean} drift */
  draw(nowMs, drift) {
    const { width, height } = this.#fit();
    const context = this.#context;
    context.clearRect(0, 0, width, height);
    context.fillStyle = getComputedStyle(this.#canvas).color;
    const pitch = BAR_WIDTH + BAR_GAP;
    const count = Math.min(MAX_BARS, Math.ceil(width / pitch) + 1);
    const shift = drift ? (Math.min(BAR_MS, nowMs - this.#bornAt) / BAR_MS) * pitch : 0;
    context.beginPath();
    for (let i = 0; i < count; i++) {
      const along = i * pitch + shift;
      const x = this.#direction > 0 ? along : width - along - BAR_WIDTH;
      const tall = Math.max(BAR_WIDTH, this.#bars[i] * (height - 2));
      context.roundRect(x, (height - tall) / 2, BAR_WIDTH, tall, BAR_WIDTH / 2);
    }
    context.fill();
  }

  /** Matches the canvas to its size on the screen and the screen's pixel density. */
  #fit() {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const ratio = globalThis.devicePixelRatio || 1;
    const [pixelsWide, pixelsHigh] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.#canvas.width !== pixelsWide || this.#canvas.height !== pixelsHigh) {
      this.#canvas.width = pixelsWide;
      this.#canvas.height = pixelsHigh;
    }
    this.#context.setTransform(ratio, 0, 0, ratio, 0, 0);
    return { width, height };
  }
}

/** Tells an element how loud it is, as the CSS property --level (0..1), falling gently. */
export class Glow {
  #element;
  #readLevel;
  #level = 0;

  /** @param {HTMLElement} element @param {() => number} readLevel */
  constructor(element, readLevel) {
    this.#element = element;
    this.#readLevel = readLevel;
  }

  get lively() {
    return this.#level > 0;
  }

  sample() {
    const faded = this.#level * 0.88;
    this.#level = Math.max(this.#readLevel(), faded < 0.01 ? 0 : faded);
  }

  draw() {
    this.#element.style.setProperty("--level", this.#level.toFixed(3));
  }
}

/**
 * Draws waveforms while `live` or still moving; rests otherwise, so that an idle page costs nothing.
 *
 * @param {(Waveform | Glow)[]} waveforms
 * @returns {{setLive: (live: boolean) => void, redraw: () => void}}
 */
export function animate(waveforms) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  let live = false;
  let scheduled = false;
  let drawnAt = 0;

  /** @param {number} nowMs */
  function frame(nowMs) {
    scheduled = false;
    for (const waveform of waveforms) waveform.sample(nowMs);
    if (!calm.matches || nowMs - drawnAt >= CALM_REDRAW_MS) {
      drawnAt = nowMs;
      for (const waveform of waveforms) waveform.draw(nowMs, !calm.matches);
    }
    if (live || waveforms.some((waveform) => waveform.lively)) schedule();
  }

  function schedule() {
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(frame);
  }

  const redraw = () => {
    drawnAt = 0;
    schedule();
  };
  new ResizeObserver(redraw).observe(document.body);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  redraw();
  return {
    setLive(next) {
      live = next;
      schedule();
    },
    redraw,
  };
}
