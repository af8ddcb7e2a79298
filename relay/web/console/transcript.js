/**
 * The transcript as data: what was said, and which tools ran, in the order of the conversation.
 *
 * Messages come out of order: a user's words are often written down after the answer has begun, and the answer's
 * text is streamed before its item is named. `order` settles it; until it is known, an entry is where it
 * arrived. No DOM: a view listens through `onChange` and `onRemove`.
 *
 * @typedef {object} Entry
 * @property {number} key              for views; never reused
 * @property {number} epoch            the session it belongs to; item ids and orders mean nothing beyond it
 * @property {"speech" | "tool" | "divider"} kind
 * @property {"user" | "assistant" | null} role
 * @property {string | null} id        item id or call id
 * @property {number | null} order
 * @property {string} text
 * @property {boolean} done            nothing more comes (a late final may still correct it)
 * @property {boolean} typed
 * @property {{text: string, playedMs: number, estimated: boolean} | null} heard  set when it was interrupted
 * @property {any} latency             the relay's latency message
 * @property {string} status           of a response, when it did not complete
 * @property {any} tool                the relay's tool messages, merged
 */

const MAX_ENTRIES = 400;
const MAX_TEXT = 20_000;

export class Transcript {
  /** @type {Entry[]} */
  entries = [];
  /** @type {(entry: Entry) => void} */
  onChange = () => {};
  /** @type {(entry: Entry) => void} */
  onRemove = () => {};
  #epoch = 0;
  #lastKey = 0;
  /** The answer being streamed. @type {Entry | null} */
  #answer = null;
  /** Waits for the first entry of a session, so that sessions in which nothing is said leave no line. */
  #divider = "";

  /** A new session begins; what was said before stays. @param {string} text for a line between them */
  beginSession(text) {
    this.endSession();
    this.#epoch++;
    this.#divider = this.entries.length > 0 ? text : "";
  }

  /** Nothing more comes: what was only begun is closed or taken away. */
  endSession() {
    this.#answer = null;
    for (const entry of this.#current().filter(({ done }) => !done)) {
      if (entry.kind === "speech" && entry.text === "") this.#remove(entry);
      else this.#change(entry, { done: true });
    }
  }

  /** The user began to speak: an entry to be filled when the words come. */
  speechStarted() {
    // An earlier one that never got words was noise, or the relay does not write down what users say.
    const empty = this.#current().filter(
      (entry) => entry.role === "user" && entry.id === null && !entry.typed && entry.done,
    );
    for (const entry of empty) this.#remove(entry);
    this.#add({ kind: "speech", role: "user" });
  }

  speechEnded() {
    const entry = this.#current().find(({ role, id, done }) => role === "user" && id === null && !done);
    if (entry) this.#change(entry, { done: true });
  }

  /** @param {string} text */
  typed(text) {
    this.#add({ kind: "speech", role: "user", text: text.slice(0, MAX_TEXT), typed: true, done: true });
  }

  /** @param {string} text */
  answerDelta(text) {
    this.#answer ??= this.#add({ kind: "speech", role: "assistant" });
    this.#change(this.#answer, { text: (this.#answer.text + text).slice(0, MAX_TEXT) });
  }

  /** Audio of this item begins: names the answer being streamed. @param {string} itemId */
  answerAudio(itemId) {
    if (this.#find(itemId)) return;
    if (this.#answer === null || this.#answer.id !== null)
      this.#answer = this.#add({ kind: "speech", role: "assistant", id: itemId });
    else this.#answer.id = itemId;
  }

  /** @param {{finalText: string, status: string}} response */
  answerEnded({ finalText, status }) {
    const entry = this.#answer;
    this.#answer = null;
    if (entry === null) return;
    const text = entry.text || finalText.slice(0, MAX_TEXT);
    if (text === "") this.#remove(entry);
    else this.#change(entry, { text, done: true, status: status === "completed" || entry.heard ? "" : status });
  }

  /** @param {{itemId: string, playedMs: number, heardText: string, estimated?: boolean}} message */
  interrupted({ itemId, playedMs, heardText, estimated = false }) {
    const entry = this.#find(itemId) ?? this.#unnamedAnswer();
    if (!entry) return;
    if (entry === this.#answer) this.#answer = null;
    this.#change(entry, { id: itemId, done: true, heard: { text: heardText, playedMs, estimated } });
  }

  /** @param {{role: string, itemId: string, order: number, text: string, final: boolean}} message */
  transcript({ role, itemId, order, text, final }) {
    if (role === "user") this.#userWords(itemId, order, text, final);
    else if (role === "assistant" && final) this.#answerWords(itemId, order, text);
  }

  /** @param {any} message  the relay's tool message */
  tool(message) {
    const entry =
      this.#current().find(({ kind, id }) => kind === "tool" && id === message.callId) ??
      this.#add({ kind: "tool", id: message.callId, tool: message });
    const done = !["started", "progress"].includes(message.status);
    this.#change(entry, { tool: { ...entry.tool, ...message }, done });
  }

  /** @param {any} message  the relay's latency message */
  latency(message) {
    const entry = this.#find(message.itemId) ?? this.#unnamedAnswer();
    if (entry) this.#change(entry, { latency: message });
  }

  /** @param {string} itemId @param {number} order @param {string} text @param {boolean} final */
  #userWords(itemId, order, text, final) {
    const entry =
      this.#find(itemId) ?? this.#claim(text, final) ?? this.#add({ kind: "speech", role: "user", order });
    entry.id = itemId;
    entry.order = order;
    if (final && text.trim() === "") {
      this.#remove(entry);
      return;
    }
    this.#place(entry);
    this.#change(entry, { text: (final ? text : entry.text + text).slice(0, MAX_TEXT), done: final });
  }

  /** The entry that waits for these words. @param {string} text @param {boolean} final */
  #claim(text, final) {
    const waiting = this.#current().filter(({ role, id }) => role === "user" && id === null);
    const typed = waiting.find((entry) => final && entry.typed && entry.text.trim() === text.trim());
    return typed ?? waiting.find((entry) => !entry.typed);
  }

  /** @param {string} itemId @param {number} order @param {string} text */
  #answerWords(itemId, order, text) {
    const entry =
      this.#find(itemId) ?? this.#unnamedAnswer() ?? this.#add({ kind: "speech", role: "assistant", order });
    if (entry === this.#answer) this.#answer = null;
    entry.id = itemId;
    entry.order = order;
    this.#place(entry);
    // After an interruption a final may hold no more than was heard; what had been streamed stays on show.
    const whole = entry.heard && entry.text.startsWith(text) ? entry.text : text.slice(0, MAX_TEXT);
    this.#change(entry, { text: whole, done: true });
  }

  #unnamedAnswer() {
    return this.#current().find(({ role, id }) => role === "assistant" && id === null);
  }

  /** @param {string} itemId */
  #find(itemId) {
    return this.#current().find(({ kind, id }) => kind === "speech" && id === itemId);
  }

  #current() {
    return this.entries.filter(({ epoch }) => epoch === this.#epoch);
  }

  /** @param {Partial<Entry>} fields @returns {Entry} */
  #add(fields) {
    const divider = this.#divider;
    this.#divider = "";
    if (divider) this.#add({ kind: "divider", text: divider, done: true });
    /** @type {Entry} */
    const entry = {
      key: ++this.#lastKey,
      epoch: this.#epoch,
      kind: "speech",
      role: null,
      id: null,
      order: null,
      text: "",
      done: false,
      typed: false,
      heard: null,
      latency: null,
      status: "",
      tool: null,
      ...fields,
    };
    this.entries.splice(this.#slot(entry), 0, entry);
    if (this.entries.length > MAX_ENTRIES) this.#remove(this.entries[0]);
    this.onChange(entry);
    return entry;
  }

  /** @param {Entry} entry @param {Partial<Entry>} fields */
  #change(entry, fields) {
    Object.assign(entry, fields);
    this.onChange(entry);
  }

  /** @param {Entry} entry */
  #remove(entry) {
    this.entries.splice(this.entries.indexOf(entry), 1);
    if (entry === this.#answer) this.#answer = null;
    this.onRemove(entry);
  }

  /** Moves an entry whose order has become known, unless it is in place. @param {Entry} entry */
  #place(entry) {
    const at = this.entries.indexOf(entry);
    const right = this.entries.every(
      (other, i) =>
        other.epoch !== entry.epoch ||
        other.order === null ||
        other === entry ||
        i < at === other.order < Number(entry.order),
    );
    if (right) return;
    this.entries.splice(at, 1);
    this.entries.splice(this.#slot(entry), 0, entry);
  }

  /**
   * Where an entry belongs. The user's text is as early as its order allows (before the tools and the answer
   * it caused, whose orders may be unknown), everything else as late.
   *
   * @param {Entry} entry
   */
  #slot({ role, order, epoch }) {
    if (order === null) return this.entries.length;
    if (role !== "user") {
      const next = this.entries.findIndex(
        (other) => other.epoch === epoch && other.order !== null && other.order > order,
      );
      return next < 0 ? this.entries.length : next;
    }
    const before = this.entries.findLastIndex(
      (other) =>
        other.epoch !== epoch ||
        other.kind === "divider" ||
        (other.order !== null ? other.order < order : other.kind === "speech" && other.done),
    );
    return before + 1;
  }
}
