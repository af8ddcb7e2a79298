// @openai/agents-realtime as its users write it: typed and spoken turns, a tool of the client's beside the server's, a
// barge-in and an interruption, another agent and a history edit. Every event of the server goes to standard output,
// one JSON object a line.
import { readFileSync } from 'node:fs';
import { RealtimeAgent, RealtimeSession, tool } from '@openai/agents-realtime';
import { z } from 'zod';

let switched = 0;
const lamp = tool({
  name: 'switch_lamp',
  description: 'Switch the lamp.',
  parameters: z.object({}),
  execute: async () => { switched += 1; return 'The lamp is on.'; },
});
const agent = new RealtimeAgent({ name: 'Tester', instructions: 'Be brief.', tools: [lamp] });
const session = new RealtimeSession(agent, { transport: 'websocket', model: 'gpt-realtime' });
const seen = [];
const waiting = [];
session.transport.on('*', (event) => {
  console.log(JSON.stringify(event));
  seen.push(event);
  for (const wake of waiting.splice(0)) wake();
});
session.on('error', (error) => { console.error('session error', JSON.stringify(error)); process.exitCode = 1; });

let taken = 0;
async function expect(type, fits = () => true) {
  for (;;) {
    while (taken < seen.length) {
      const event = seen[taken++];
      if (event.type === type && fits(event)) return event;
    }
    await new Promise((wake) => waiting.push(wake));
  }
}

await session.connect({ apiKey: process.env.API_KEY, url: process.env.WS_URL });
await expect('session.updated', (event) => (event.session.tools ?? []).length === 1);

session.sendMessage('Roll two dice');
await expect('response.output_audio_transcript.done', (event) => event.transcript.includes('rolled'));
await expect('response.done');

session.sendMessage('switch lamp');
await expect('response.output_audio_transcript.done', (event) => event.transcript.includes('lamp'));
await expect('response.done');
if (switched !== 1) throw new Error(`the lamp was switched ${switched} times`);

const pcm = readFileSync(process.env.PCM);
function speak() {
  for (let at = 0; at < pcm.length; at += 4800) {
    const bytes = pcm.subarray(at, at + 4800);
    session.sendAudio(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  }
}
speak();
await expect('input_audio_buffer.speech_started');
await expect('response.output_audio.delta');
await expect('response.done');

session.sendMessage('Tell me a story');
const story = await expect('response.output_audio.delta');
speak();
await expect('input_audio_buffer.speech_started');
await expect('response.done', (event) => event.response.id === story.response_id && event.response.status === 'cancelled');
await expect('response.output_audio_transcript.done', (event) => event.transcript.includes('rolled'));
await expect('response.done');

await session.updateAgent(new RealtimeAgent({ name: 'Other', instructions: 'Be kind.', tools: [] }));
await expect('session.updated', (event) => (event.session.tools ?? []).length === 0);
const kept = session.history.slice(1);
const dropped = session.history[0].itemId;
session.updateHistory(kept);
await expect('conversation.item.deleted', (event) => event.item_id === dropped);

session.sendMessage('Tell me a story');
await expect('response.output_audio.delta');
session.interrupt();
await expect('response.done', (event) => event.response.status === 'cancelled');
session.close();
