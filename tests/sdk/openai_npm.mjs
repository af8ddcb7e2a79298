// The openai package as its users write it: typed and spoken turns, a tool of the client's beside the server's, a
// response with settings of its own and one outside the conversation, a history edit, a refused event, a cancelled
// response and a barge-in. Every event goes to standard output, one JSON object a line.
import { readFileSync } from 'node:fs';
import OpenAI from 'openai';
import { OpenAIRealtimeWS } from 'openai/realtime/ws';

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: process.env.API_KEY });
const rt = await OpenAIRealtimeWS.create(client, { model: 'gpt-realtime' });
const seen = [];
const waiting = [];
rt.on('event', (event) => {
  console.log(JSON.stringify(event));
  seen.push(event);
  for (const wake of waiting.splice(0)) wake();
});
rt.on('error', (error) => { if (!error.error) { console.error(error); process.exit(1); } });

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

const lamp = { type: 'function', name: 'switch_lamp', description: 'Switch the lamp.', parameters: { type: 'object', properties: {} } };
const say = (text) => rt.send({ type: 'conversation.item.create', item: { type: 'message', role: 'user', content: [{ type: 'input_text', text }] } });

await expect('session.created');
rt.send({ type: 'session.update', session: { type: 'realtime', instructions: 'Be brief.', output_modalities: ['text'], tools: [lamp] } });
await expect('session.updated');

say('Roll two dice');
rt.send({ type: 'response.create', response: { metadata: { step: 'server tool' } } });
await expect('response.output_text.done', (event) => event.text.includes('rolled'));
await expect('response.done');

say('switch lamp');
rt.send({ type: 'response.create' });
const call = await expect('response.function_call_arguments.done');
rt.send({ type: 'conversation.item.create', item: { type: 'function_call_output', call_id: call.call_id, output: '{"summary":"The lamp is on."}' } });
rt.send({ type: 'response.create' });
const answer = await expect('response.output_text.done', (event) => event.text.includes('lamp'));
await expect('response.done');

say('Roll two dice and switch lamp');
rt.send({ type: 'response.create' });
const mixed = (await expect('response.done')).response.output;
if (mixed.length !== 1 || mixed[0].name !== 'switch_lamp') throw new Error(`the output is ${JSON.stringify(mixed)}`);
rt.send({ type: 'conversation.item.create', item: { type: 'function_call_output', call_id: mixed[0].call_id, output: '{"summary":"The lamp is off."}' } });
rt.send({ type: 'response.create' });
await expect('response.output_text.done', (event) => event.text.includes('rolled') && event.text.includes('lamp'));
await expect('response.done');

const aside = [{ type: 'message', role: 'user', content: [{ type: 'input_text', text: 'Hello' }] }];
rt.send({ type: 'response.create', response: { conversation: 'none', metadata: { topic: 'aside' }, input: aside } });
await expect('response.done', (event) => event.response.metadata?.topic === 'aside');

rt.send({ type: 'conversation.item.delete', item_id: answer.item_id });
await expect('conversation.item.deleted');
rt.send({ type: 'conversation.item.retrieve', item_id: 'item_nobody', event_id: 'mine' });
await expect('error', (event) => event.error.event_id === 'mine');

rt.send({ type: 'session.update', session: { type: 'realtime', output_modalities: ['audio'] } });
await expect('session.updated');
const pcm = readFileSync(process.env.PCM);
function speak() {
  for (let at = 0; at < pcm.length; at += 4800) {
    rt.send({ type: 'input_audio_buffer.append', audio: pcm.subarray(at, at + 4800).toString('base64') });
  }
}
speak();
await expect('input_audio_buffer.speech_started');
await expect('response.output_audio.delta');
await expect('response.done');

say('Hello');
rt.send({ type: 'response.create', response: { output_modalities: ['text'], instructions: 'Be kind.', metadata: { step: 'overrides' } } });
await expect('response.output_text.done');
await expect('response.done', (event) => event.response.metadata.step === 'overrides');

say('Tell me a story');
rt.send({ type: 'response.create' });
const story = await expect('response.output_audio.delta');
speak();
await expect('input_audio_buffer.speech_started');
rt.send({ type: 'conversation.item.truncate', item_id: story.item_id, content_index: 0, audio_end_ms: 20 });
await expect('response.done', (event) => event.response.id === story.response_id && event.response.status === 'cancelled');
await expect('response.output_audio_transcript.done', (event) => event.transcript.includes('rolled'));
await expect('response.done');

say('Tell me a story');
rt.send({ type: 'response.create' });
await expect('response.output_audio.delta');
rt.send({ type: 'response.cancel' });
await expect('response.done', (event) => event.response.status === 'cancelled');
rt.close();
