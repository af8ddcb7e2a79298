// Calls the published NAVAI client: one JSON array [method, argument] per line in, one {ok} or {error} per line out.
import { createInterface } from "node:readline";
import { createNavaiBackendClient } from "@navai/voice-frontend";

const client = createNavaiBackendClient({ apiBaseUrl: process.argv[2] });

for await (const line of createInterface({ input: process.stdin })) {
  const [method, argument] = JSON.parse(line);
  let answer;
  try {
    answer = { ok: await client[method](argument ?? undefined) };
  } catch (error) {
    answer = { error: error.message };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
