// Everything that the Node `openai` client offers of what this server has, one call after another; a line for each.

import assert from "node:assert/strict";
import { createReadStream } from "node:fs";

import { client, conversations, name, place, saw, toFile } from "./asking.mjs";
import { tryFiles, tryUploads } from "./files.mjs";
import { listed, submitted, tryCancelling, tryRetries, waited } from "./jobs.mjs";
import { tryMistakes } from "./mistakes.mjs";
import { tryCheckpoints, tryModels, tryResults, tryServing } from "./models.mjs";
import { delivered, receiver } from "./webhooks.mjs";

await tryFiles();
await tryUploads();
const base = await client.files.create({ file: createReadStream(place.base), purpose: "base-model" });
const training = await client.files.create({
  file: await toFile(Buffer.from(conversations(0, 12)), "training.jsonl"),
  purpose: "fine-tune",
});
const validation = await client.files.create({
  file: await toFile(Buffer.from(conversations(20, 24)), "validation.jsonl"),
  purpose: "fine-tune",
});
const { url, next, close } = await receiver();
const endpoint = await client.post("/webhook_endpoints", {
  body: { name, url, event_types: ["fine_tuning.job.succeeded"] },
});
saw("post /webhook_endpoints", { id: endpoint.id });
const jobs = await submitted(training.id, validation.id);
await listed(jobs);
await tryCancelling(training.id);
await tryRetries(training.id);
await tryMistakes(training.id);
await waited(jobs.supervised);
await delivered(next, jobs.supervised, endpoint.signing_secret);
close();
const job = await client.fineTuning.jobs.retrieve(jobs.supervised);
assert.equal(job.status, "succeeded");
await tryResults(job);
await tryCheckpoints(job);
await tryServing(job);
await tryModels(job, base.id);
