// What is refused, and as which of the client's errors.

import assert from "node:assert/strict";
import { createReadStream } from "node:fs";

import { OpenAI, another, asked, client, conversations, lines, numbers, place, refused, saw, toFile } from "./asking.mjs";

/** Each error of the client, by what really brings it about. */
export async function tryMistakes(training) {
  const { jobs } = client.fineTuning;
  const body = { model: "tiny-llama", training_file: training };
  const reader = another({ key: place["reading-key"] });
  const prompts = lines(numbers(0, 12).map((number) => ({ messages: asked(number) })));
  const unanswered = await client.files.create({ file: await toFile(Buffer.from(prompts), "a.jsonl"), purpose: "fine-tune" });
  const soon = { anchor: "created_at", seconds: 1 };
  const file = await toFile(Buffer.from(conversations(0, 12)), "a.jsonl");
  const calls = {
    "AuthenticationError, unknown key": () => another({ key: "sk-unknown" }).models.list(),
    "PermissionDeniedError, a key that may only read": () => reader.fineTuning.jobs.create(body),
    "NotFoundError, unknown job": () => jobs.retrieve("job-unknown"),
    "NotFoundError, unknown model": () => jobs.create({ ...body, model: "gpt-9" }),
    "UnprocessableEntityError, too many epochs": () => jobs.create({ ...body, hyperparameters: { n_epochs: 51 } }),
    "BadRequestError, expires too soon": () =>
      client.files.create({ file, purpose: "fine-tune", expires_after: soon }),
    "UnprocessableEntityError, no answers to learn": () => jobs.create({ ...body, training_file: unanswered.id }),
  };
  for (const [what, call] of Object.entries(calls)) {
    const error = await refused(call, OpenAI[what.split(",")[0]]);
    assert.ok(error.error.message);
    saw(what, { status: error.status, message: error.error.message });
  }
  await tryConflict(body);
  await tryLimit();
}

async function tryConflict(body) {
  const { jobs } = client.fineTuning;
  const job = await jobs.create(body);
  await jobs.cancel(job.id);
  const error = await refused(() => jobs.resume(job.id), OpenAI.ConflictError);
  assert.equal(error.headers.get("x-should-retry"), "false");
  saw("ConflictError, resume", { status: error.status, message: error.error.message });
}

async function tryLimit() {
  const narrow = another({ key: place["narrow-key"], maxRetries: 0 });
  await narrow.files.create({ file: createReadStream(place.base), purpose: "base-model" });
  const content = await toFile(Buffer.from(conversations(0, 12)), "training.jsonl");
  const file = await narrow.files.create({ file: content, purpose: "fine-tune" });
  const body = { model: "tiny-llama", training_file: file.id };
  const job = await narrow.fineTuning.jobs.create(body);
  await narrow.fineTuning.jobs.pause(job.id);
  const error = await refused(() => narrow.fineTuning.jobs.create({ ...body, seed: 1 }), OpenAI.RateLimitError);
  saw("RateLimitError, quota", { status: error.status, message: error.error.message });
  await narrow.fineTuning.jobs.cancel(job.id);
}
