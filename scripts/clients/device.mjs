// A device client of Relay in JavaScript: node device.mjs URL MICROPHONE.pcm SPEAKER.pcm (Node 22 or newer), or in a
// page: import { talk } from "./device.mjs". Raw PCM16, mono, 16 kHz (the microphone's file may grow while it is read);
// one turn, in real time. The key, if any, is in RELAY_KEY.
// Exit codes: 0 turn completed · 1 usage error · 2 refused permanently · 3 connection lost or relay busy · 4 no answer

const FRAME_MS = 20, FRAME_BYTES = 640, BYTES_PER_MS = 32;
const SETTLE_MS = 1000, GIVE_UP_MS = 30_000; // text overtakes audio: one more item may follow
const FINAL_CODES = [1002, 1007, 1008, 1009]; // this client violated the protocol: do not retry
const HELLO = { v: 1, input: { rate: 16000 }, output: { rate: 16000 }, maxAheadMs: 500 };

/** One turn. `microphone(n)` returns the next n bytes or fewer, `speaker(bytes)` plays; resolves to the exit code. */
export function talk(url, microphone, speaker, { key, log = console } = {}) {
  // Node's WebSocket accepts headers, a browser's does not: pages need an allowed origin instead of a key.
  const relay = key ? new WebSocket(url, { headers: { Authorization: `Bearer ${key}` } }) : new WebSocket(url);
  relay.binaryType = "arraybuffer";
  const send = (type, fields) => relay.send(JSON.stringify({ type, ...fields }));
  let queue = []; // what is to be played, in order: audio, the id of an item that begins, null where it ends
  let item = null, playedBytes = 0, step = 0, ended = false, retryable = true, verdict, timer, start, news;

  relay.onopen = () => {
    send("hello", HELLO);
    start = news = performance.now();
    timer = setInterval(() => { // timers are late: catch up with the clock
      while (verdict === undefined && start + step * FRAME_MS <= performance.now()) tick();
    }, FRAME_MS / 2);
  };

  relay.onmessage = ({ data }) => {
    news = performance.now();
    if (typeof data !== "string") return queue.push(new Uint8Array(data));
    const message = JSON.parse(data);
    switch (message.type === "event" ? message.name : message.type) {
      case "audioStart": queue.push(message.itemId); break;
      case "audioEnd": queue.push(null); break;
      case "interrupted": queue = []; item = null; break; // the rest must be neither played nor acknowledged
      case "AISpeechDetected": case "AIResponseStart": ended = false; break;
      case "AIResponseEnd": ended = !message.more && message.status !== "cancelled"; break; // cancelled: the user's turn follows
      case "transcript": if (message.final) log.log(`${message.role}: ${message.text}`); break;
      case "error": ({ retryable } = message); log.error(`${message.code}: ${message.message}`); break;
    }
  };

  const playback = () => send("playback", { itemId: item, playedMs: Math.floor(playedBytes / BYTES_PER_MS) });

  function tick() { // 20 ms of input and output
    const frame = microphone(FRAME_BYTES), padded = new Uint8Array(FRAME_BYTES);
    padded.set(frame); // silence after the file: speech detection follows the audio
    relay.send(padded);
    for (let room = FRAME_BYTES; queue.length && room;) {
      const head = queue.shift();
      if (head instanceof Uint8Array) {
        const audio = head.subarray(0, room);
        speaker(audio);
        playedBytes += audio.length;
        room -= audio.length;
        if (audio.length < head.length) queue.unshift(head.subarray(audio.length));
      } else if (head !== null) { item = head; playedBytes = 0; }
      else if (item !== null) { playback(); item = null; }
    }
    if (item !== null && step % 10 === 0) playback(); // every 200 ms, so that a barge-in truncates exactly
    step++;
    if (frame.length || queue.length || item !== null) news = performance.now();
    else if (performance.now() - news > (ended ? SETTLE_MS : GIVE_UP_MS)) { verdict = ended ? 0 : 4; send("bye"); relay.close(1000); }
  }

  return new Promise((resolve) => {
    relay.onclose = ({ code, reason }) => { // also for a refused handshake, as 1006; pages get no reason
      clearInterval(timer);
      if (verdict === undefined) log.error(`closed with ${code} ${reason}`);
      resolve(verdict ?? (FINAL_CODES.includes(code) || (code === 1011 && !retryable) ? 2 : 3));
    };
  });
}

if (globalThis.process?.argv[1] && import.meta.url === (await import("node:url")).pathToFileURL(process.argv[1]).href) {
  const { openSync, readSync, writeSync } = await import("node:fs");
  const [url, source, target] = process.argv.slice(2);
  if (!target) { console.error("usage: node device.mjs URL MICROPHONE.pcm SPEAKER.pcm"); process.exit(1); }
  const heard = openSync(source), said = openSync(target, "w"), buffer = new Uint8Array(FRAME_BYTES);
  const microphone = (n) => buffer.subarray(0, readSync(heard, buffer, 0, n));
  process.exit(await talk(url, microphone, (pcm) => writeSync(said, pcm), { key: process.env.RELAY_KEY }));
}
