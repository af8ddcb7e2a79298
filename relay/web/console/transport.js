/**
 * How messages and audio travel between a page and the relay.
 *
 * RelayClient knows only this interface, so that another transport (WebRTC, a test double) can be used beside
 * the WebSocket without a change above it.
 *
 * @typedef {object} Closing
 * @property {number} code     WebSocket close code; 1006 when the connection vanished or was never made
 * @property {string} reason   from the relay; may be empty
 * @property {boolean} opened  whether the connection had been open at all
 *
 * @typedef {object} Transport
 * @property {() => Promise<void>} open  resolves when messages can be sent; rejects with TransportError, and
 *     then onClose is not called
 * @property {(audio: ArrayBuffer) => boolean} sendAudio    false: not sent, because closed or congested
 * @property {(message: object) => boolean} sendMessage     false: not sent, because closed
 * @property {(code?: number, reason?: string) => void} close
 * @property {(message: unknown) => void} onMessage         one decoded JSON message
 * @property {(audio: ArrayBuffer) => void} onAudio         one binary frame
 * @property {(closing: Closing) => void} onClose           once, after a successful open
 */

/** The connection could not be made; `closing` says what is known of why. */
export class TransportError extends Error {
  /** @param {Closing} closing */
  constructor(closing) {
    super(`The connection could not be opened (${closing.code}).`);
    this.name = "TransportError";
    this.closing = closing;
  }
}

/**
 * The address of the device protocol on the host that served a page.
 *
 * @param {number} rateHz  sample rate asked for, both ways
 * @param {{protocol: string, host: string}} [location]
 */
export function relaySocketUrl(rateHz, location = globalThis.location) {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  return `${scheme}//${location.host}/ws?rate=${rateHz}`;
}

/** @implements {Transport} */
export class WebSocketTransport {
  /** @type {WebSocket | null} */
  #socket = null;
  #url;
  #protocols;
  #maxBufferedBytes;

  /** @type {(message: unknown) => void} */
  onMessage = () => {};
  /** @type {(audio: ArrayBuffer) => void} */
  onAudio = () => {};
  /** @type {(closing: Closing) => void} */
  onClose = () => {};

  /**
   * @param {string} url
   * @param {{protocols?: string[], maxBufferedBytes?: number}} [options]  microphone frames are dropped while
   *     more than maxBufferedBytes wait in the socket (default: two seconds at 24 kHz): late audio helps nobody
   */
  constructor(url, { protocols = [], maxBufferedBytes = 96_000 } = {}) {
    this.#url = url;
    this.#protocols = protocols;
    this.#maxBufferedBytes = maxBufferedBytes;
  }

  /** @returns {Promise<void>} */
  open() {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(this.#url, this.#protocols);
      let opened = false;
      socket.binaryType = "arraybuffer";
      socket.onopen = () => {
        opened = true;
        resolve();
      };
      socket.onmessage = ({ data }) => this.#receive(data);
      socket.onclose = ({ code, reason }) => {
        const closing = { code, reason, opened };
        if (opened) this.onClose(closing);
        else reject(new TransportError(closing));
      };
      this.#socket = socket;
    });
  }

  /** @param {ArrayBuffer} audio */
  sendAudio(audio) {
    const socket = this.#socket;
    if (socket?.readyState !== WebSocket.OPEN || socket.bufferedAmount > this.#maxBufferedBytes) return false;
    socket.send(audio);
    return true;
  }

  /** @param {object} message */
  sendMessage(message) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  /** @param {number} [code] @param {string} [reason] */
  close(code = 1000, reason = "") {
    this.#socket?.close(code, reason);
  }

  /** @param {string | ArrayBuffer} data */
  #receive(data) {
    if (typeof data !== "string") {
      this.onAudio(data);
      return;
    }
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      message = null; // not JSON: the client counts it as a fault, like any other malformed message
    }
    this.onMessage(message);
  }
}
