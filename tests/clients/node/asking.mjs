// What the parts of the program share: the client, the command line, and a line for each call.

import { parseArgs } from "node:util";
import assert from "node:assert/strict";

const names = [
  "client", "base-url", "lossy-url", "key", "reading-key", "narrow-key", "other-project", "base", "waits-for",
];
const { values } = parseArgs({ options: Object.fromEntries(names.map((name) => [name, { type: "string" }])) });
const library = await import(values.client);

export const { OpenAI, toFile } = library;
export const place = values;
export const name = `node ${(await import(new URL("version.mjs", `file://${values.client}`))).VERSION}`;
export const client = another({});

/** A client as it is installed; it has permissions asked with a key of an admin, which it is given apart. */
export function another({ key = values.key, baseURL = values["base-url"], ...options }) {
  return new OpenAI({ apiKey: key, adminAPIKey: key, baseURL, ...options });
}

/** All items of a list or a stream: the client asks for page after page. */
export async function everything(items) {
  const found = [];
  for await (const item of await items) found.push(item);
  return found;
}

/** The error that a call must end with. */
export async function refused(call, kind) {
  let found;
  await assert.rejects(call, (error) => {
    found = error;
    assert.ok(error instanceof kind, error);
    return true;
  });
  return found;
}

/** Print a call, and what came of it. */
export function saw(call, what) {
  process.stdout.write(JSON.stringify({ call, ...what }) + "\n");
}

export const lines = (values) => values.map((value) => JSON.stringify(value) + "\n").join("");
export const ids = (items) => items.map((item) => item.id);
export const numbers = (first, last) => Array.from({ length: last - first }, (_, index) => first + index);
export const asked = (number) => [{ role: "user", content: `what follows ${number}?` }];
export const conversations = (first, last) =>
  lines(
    numbers(first, last).map((number) => ({
      messages: [...asked(number), { role: "assistant", content: String(number + 1) }],
    })),
  );
