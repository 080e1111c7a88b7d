// The calls of test_api_strict.py through OpenAI's client for Node; prints what came as JSON.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { join } from "node:path";

const [modules, baseURL, bias] = process.argv.slice(2);
const found = createRequire(join(modules, "x.js")).resolve("openai");
const { default: OpenAI } = await import(pathToFileURL(found));
const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0 });
const model = "talker", temperature = 0;
const messages = [{ role: "user", content: "hi" }];
const tools = [{ type: "function", function: { name: "add", parameters: {
  type: "object", properties: { a: { enum: [1, 22] } }, required: ["a"],
  additionalProperties: false } } }];
const logit_bias = JSON.parse(bias);
const out = {};

out.models = (await client.models.list()).data.map((m) => m.id);
out.model = (await client.models.retrieve("talker")).id;
out.completion = await client.completions.create({ model, prompt: ["abc", "the"], n: 2,
  temperature: 1, seed: 3, max_tokens: 6, logprobs: 1 });
out.chat = await client.chat.completions.create({ model, messages, temperature, max_tokens: 12,
  logprobs: true, top_logprobs: 2 });
let text = "", usage = null;
for await (const chunk of await client.chat.completions.create({ model, messages, temperature,
  max_tokens: 12, stream: true, stream_options: { include_usage: true } })) {
  text += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
out.streamed = { text, usage };
const helper = client.chat.completions.stream({ model, messages, temperature, tools,
  tool_choice: "required", parallel_tool_calls: false, max_tokens: 200, logit_bias });
out.called = (await helper.finalChatCompletion()).choices[0];
out.embedding = (await client.embeddings.create({ model, input: "hi" })).data[0].embedding.length;
out.response = await client.responses.create({ model, input: "hi", temperature,
  max_output_tokens: 12 });
const types = [];
for await (const event of await client.responses.create({ model, input: "hi", temperature,
  max_output_tokens: 12, stream: true })) types.push(event.type);
out.types = [...new Set(types)];
const tokens = await (await fetch(new URL("/tokenize", baseURL), { method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify({ content: "abc" }) })).json();
out.tokens = tokens.tokens;
const refused = async (ask) => {
  try { await ask(); } catch (error) {
    return { name: error.constructor.name, status: error.status, param: error.param,
      code: error.code, type: error.type };
  }
};
out.refusals = [
  await refused(() => client.completions.create({ model: "no", prompt: "a" })),
  await refused(() => client.completions.create({ model, prompt: "a", temperature: 9 })),
  await refused(() => client.chat.completions.create({ model, messages: [], stream: true })),
];
const stopped = await client.completions.create({ model, prompt: "abc", max_tokens: 2000,
  temperature: 2, stream: true });
for await (const _ of stopped) break;   // the client goes: the server must not mind
console.log(JSON.stringify(out));
