// Drives NAVAI's frontend against the backend whose URL is given; prints one JSON object of what it got.
import { buildNavaiAgent, createNavaiBackendClient } from "@navai/voice-frontend";

console.log = () => {}; // the frontend's own debug lines

const client = createNavaiBackendClient({ apiBaseUrl: process.argv[2] });

async function outcome(call) {
  try {
    return await call();
  } catch (error) {
    return { thrown: error.message };
  }
}

const list = await client.listFunctions();
const results = {};
for (const [key, functionName, payload] of JSON.parse(process.argv[3])) {
  results[key] = await outcome(() => client.executeFunction({ functionName, payload }));
}
const built = await buildNavaiAgent({
  navigate: () => {},
  routes: [],
  functionModuleLoaders: {},
  backendFunctions: list.functions,
  executeBackendFunction: client.executeFunction,
});
const tools = built.agent.tools.map((tool) => tool.name);
const alias = built.agent.tools.find((tool) => tool.name === process.argv[4]);
const viaAgent = await alias.invoke({}, JSON.stringify({ payload: JSON.parse(process.argv[5]) }));
process.stdout.write(JSON.stringify({ list, results, tools, viaAgent, warnings: built.warnings }));
process.exit(0);
