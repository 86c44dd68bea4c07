// `client.webhooks`: bodies that were really delivered.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { once } from "node:events";

import { OpenAI, client, saw } from "./asking.mjs";

/** An endpoint on this machine, as a user's own service has one. */
export async function receiver() {
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    response.writeHead(204).end();
    server.emit("delivery", { headers: request.headers, body: Buffer.concat(chunks).toString() });
  });
  const waiting = [];
  server.on("delivery", (delivery) => waiting.push(delivery));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const next = async () => waiting.shift() ?? (await once(server, "delivery"), waiting.shift());
  return { url: `http://127.0.0.1:${server.address().port}/hook`, next, close: () => server.close() };
}

/** Wait until the end of the job was delivered; what was sent is signed, and cannot be changed. */
export async function delivered(next, job, secret) {
  const { headers, body } = await next();
  const event = await client.webhooks.unwrap(body, headers, secret);
  assert.deepEqual([event.type, event.data.id], ["fine_tuning.job.succeeded", job]);
  saw("webhooks.unwrap", { type: event.type, job: event.data.id });
  const forged = JSON.stringify({ ...JSON.parse(body), id: "evt_forged" });
  await assert.rejects(client.webhooks.verifySignature(forged, headers, secret), OpenAI.InvalidWebhookSignatureError);
  saw("webhooks.verify_signature", { forged: "refused" });
}
