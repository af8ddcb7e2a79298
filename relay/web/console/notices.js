/**
 * Notices: what went wrong, and what to do.
 *
 * @typedef {{title: string, text: string, again: boolean}} Notice  again: whether trying again may help
 */

/** @type {Record<string, Notice>} by the name of what is thrown when audio is started */
const AUDIO = {
  NotAllowedError: {
    title: "The microphone is blocked",
    text: "Allow it in the browser's address bar or the system's privacy settings, then try again. Typing works too.",
    again: true,
  },
  NotFoundError: {
    title: "No microphone was found",
    text: "Plug one in or switch it on, then try again. Typing works without it.",
    again: true,
  },
  NotReadableError: {
    title: "The microphone is not available",
    text: "It was unplugged, or another program is using it. Free it or plug it in, then try again.",
    again: true,
  },
  SecurityError: {
    title: "The microphone needs a secure page",
    text: "Browsers open it only on https:// or on localhost. Open this page there. Typing works here too.",
    again: false,
  },
  WorkletMissing: {
    title: "The relay cannot be reached",
    text: "It answered when this page was opened, but no longer. Start it (scripts/serve), then try again.",
    again: true,
  },
};

/** @param {Error} error @returns {Notice} */
export function audioNotice(error) {
  return (
    AUDIO[error.name] ?? {
      title: "The microphone could not be started",
      text: `The browser says: ${error.message || error.name}. Try again, or type instead.`,
      again: true,
    }
  );
}

/** @type {Record<number, Notice>} by close code */
const CLOSES = {
  1000: { title: "The relay ended the conversation", text: "Start again whenever you like.", again: true },
  1001: { title: "The relay is shutting down", text: "It may be restarting. Reconnect in a moment.", again: true },
  1006: {
    title: "The connection was lost",
    text: "Check the network and that the relay still runs, then reconnect.",
    again: true,
  },
  1008: {
    title: "The relay refused this session",
    text: "Check its access settings: allowed origins, keys, limits.",
    again: true,
  },
  1009: { title: "A message was too big for the relay", text: "Reconnect to go on.", again: true },
  1011: {
    title: "The voice model cannot be reached",
    text: "The relay runs, but its upstream does not answer. The relay's log says more.",
    again: true,
  },
  1013: { title: "The relay is full", text: "Try again in a moment.", again: true },
  4002: { title: "A limit of this session was reached", text: "Reconnect to begin a new one.", again: true },
  4003: {
    title: "The connection was too slow",
    text: "Audio could not be delivered in time. Reconnect on a better network.",
    again: true,
  },
};

/** @param {import("./client.js").Ending} ending @param {string} host @returns {Notice} */
export function closeNotice(ending, host) {
  if (ending.code === 1006 && !ending.opened) {
    return {
      title: "The relay cannot be reached",
      text: `Nothing answers at ${host}. Start it (scripts/serve) or check the address, then reconnect.`,
      again: true,
    };
  }
  if (ending.code === 1006 && !ending.connected) {
    return {
      title: "The relay does not answer",
      text: `${asSentence(ending.reason)} Its log may say why. Reconnect to try again.`.trim(),
      again: true,
    };
  }
  const known = CLOSES[ending.code] ?? {
    title: "The session was closed",
    text: "Reconnect to begin a new one.",
    again: true,
  };
  const why = ending.error?.message ?? ending.reason;
  const code =
    ending.error === null ? `close code ${ending.code}` : `close code ${ending.code}, ${ending.error.code}`;
  return { ...known, text: [asSentence(why), known.text, `(${code})`].filter(Boolean).join(" ") };
}

/** An error after which the session goes on. @param {import("./protocol.js").RelayError} error @returns {Notice} */
export function errorNotice(error) {
  const advice = error.retryable ? "Try again." : "";
  const where = error.field === undefined ? error.code : `${error.code}: ${error.field}`;
  return {
    title: "Something went wrong",
    text: [asSentence(error.message), advice, `(${where})`].filter(Boolean).join(" "),
    again: false,
  };
}

/** @param {string} text */
function asSentence(text) {
  return text === "" || /[.!?…]$/.test(text) ? text : `${text}.`;
}

/** @type {Record<"congested" | "overflow", Notice>} */
export const AUDIO_PROBLEMS = {
  congested: {
    title: "The connection is slow",
    text: "Parts of what you said could not be sent in time. Move closer to the network, or end and start again.",
    again: false,
  },
  overflow: {
    title: "Parts of the answer were dropped",
    text: "The relay sent far more audio than can be played. Stop the answer, or end and start again.",
    again: false,
  },
};
