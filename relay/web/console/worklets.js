/** The parts of the page that run on the audio thread; they are fetched when audio is first used. */

/** The relay did not hand out a part of its page: it has gone since the page was opened. */
export class WorkletMissing extends Error {
  name = "WorkletMissing";
}

/**
 * @param {BaseAudioContext} context
 * @param {string} file  beside this one
 * @throws {WorkletMissing}
 */
export async function addWorklet(context, file) {
  try {
    await context.audioWorklet.addModule(new URL(file, import.meta.url).href);
  } catch (error) {
    throw new WorkletMissing(`${file} could not be loaded`, { cause: error });
  }
}
