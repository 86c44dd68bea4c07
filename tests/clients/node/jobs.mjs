// `client.fineTuning.jobs` and `client.fineTuning.alpha.graders`.

import assert from "node:assert/strict";

import { another, asked, client, everything, ids, lines, name, numbers, place, saw, toFile } from "./asking.mjs";

const MODEL = "tiny-llama";
const ENDINGS = ["cancelled", "running"];
const GRADER = {
  type: "string_check",
  name: "next number",
  operation: "eq",
  input: "{{sample.output_text}}",
  reference: "{{item.next}}",
};

/** A job of each method; all but the supervised one are cancelled at once. */
export async function submitted(training, validation) {
  const answers = (content) => [{ role: "assistant", content }];
  const pairs = await uploaded(
    numbers(0, 12).map((number) => ({
      input: { messages: asked(number) },
      preferred_output: answers(String(number + 1)),
      non_preferred_output: answers("no"),
    })),
  );
  const prompts = await uploaded(
    numbers(0, 12).map((number) => ({ messages: asked(number), next: String(number + 1) })),
  );
  const hyperparameters = { n_epochs: 2, batch_size: 6, learning_rate_multiplier: "auto" };
  const methods = {
    supervised: { training_file: training, validation_file: validation, settings: { hyperparameters } },
    dpo: { training_file: pairs, settings: { hyperparameters: { ...hyperparameters, beta: 0.2 } } },
    reinforcement: { training_file: prompts, settings: { grader: GRADER, hyperparameters }, max_completion_tokens: 8 },
  };
  const jobs = {};
  for (const [type, { settings, ...files }] of Object.entries(methods)) {
    const metadata = { client: name, method: type };
    const body = { model: MODEL, suffix: "sums", seed: 7, metadata, method: { type, [type]: settings }, ...files };
    const job = await client.fineTuning.jobs.create(body);
    assert.deepEqual([job.object, job.model, job.seed, job.metadata], ["fine_tuning.job", MODEL, 7, metadata]);
    assert.equal(typeof job.method[type].hyperparameters.learning_rate_multiplier, "number");
    saw(`fine_tuning.jobs.create, ${type}`, { id: job.id });
    jobs[type] = job.id;
    if (type !== "supervised") assert.ok(ENDINGS.includes((await client.fineTuning.jobs.cancel(job.id)).status));
  }
  await tryGraders();
  return jobs;
}

async function uploaded(values) {
  const file = await toFile(Buffer.from(lines(values)), "data.jsonl");
  return (await client.files.create({ file, purpose: "fine-tune" })).id;
}

async function tryGraders() {
  const { graders } = client.fineTuning.alpha;
  assert.deepEqual((await graders.validate({ grader: GRADER })).grader, GRADER);
  saw("fine_tuning.alpha.graders.validate", { grader: GRADER.name });
  const found = await graders.run({ grader: GRADER, model_sample: "8", item: { next: "8" } });
  assert.equal(found.reward, 1);
  saw("fine_tuning.alpha.graders.run", { reward: found.reward });
}

/** Jobs are found by their metadata, page after page, and one by one. */
export async function listed(jobs) {
  const mine = await everything(client.fineTuning.jobs.list({ limit: 1, metadata: { client: name } }));
  assert.deepEqual(ids(mine), Object.values(jobs).reverse());
  saw("fine_tuning.jobs.list", { ids: ids(mine) });
  const { id, status } = await client.fineTuning.jobs.retrieve(jobs.supervised);
  assert.equal(id, jobs.supervised);
  saw("fine_tuning.jobs.retrieve", { id, status });
}

/** Jobs that are left off, gone on with, and given up; one is made as older code makes it, one with native fields. */
export async function tryCancelling(training) {
  const body = { model: MODEL, training_file: training };
  const old = await client.fineTuning.jobs.create({ ...body, hyperparameters: { n_epochs: 3, batch_size: "auto" } });
  assert.equal(old.hyperparameters.n_epochs, 3);
  saw("fine_tuning.jobs.create, hyperparameters", { id: old.id, chosen: old.hyperparameters });
  const cancelled = await client.fineTuning.jobs.cancel(old.id);
  assert.ok(ENDINGS.includes(cancelled.status));
  saw("fine_tuning.jobs.cancel", { id: old.id, status: cancelled.status });

  const native = await client.fineTuning.jobs.create({ ...body, strategy: "full" });
  assert.equal((await client.get(`/jobs/${native.id}`)).spec.strategy, "full");
  saw("fine_tuning.jobs.create, extra_body", { id: native.id });
  let paused = await client.fineTuning.jobs.pause(native.id);
  saw("fine_tuning.jobs.pause", { id: native.id, status: paused.status });
  while (paused.status !== "paused") paused = await client.fineTuning.jobs.retrieve(native.id);
  const resumed = await client.fineTuning.jobs.resume(native.id);
  assert.ok(["queued", "running"].includes(resumed.status));
  saw("fine_tuning.jobs.resume", { id: native.id, status: resumed.status });
  await client.fineTuning.jobs.cancel(native.id);
}

/** An answer that is lost: the client sends the same job again, and there is one. */
export async function tryRetries(training) {
  const metadata = { client: name, lost: "yes" };
  const lossy = another({ baseURL: place["lossy-url"] });
  const job = await lossy.fineTuning.jobs.create({ model: MODEL, training_file: training, metadata });
  const found = await everything(client.fineTuning.jobs.list({ metadata }));
  assert.deepEqual(ids(found), [job.id]);
  saw("fine_tuning.jobs.create, repeated", { id: job.id, jobs: found.length });
  await client.fineTuning.jobs.cancel(job.id);
}

/** Watch a job to its end by the stream of its events; pages say the same as the stream. */
export async function waited(id) {
  const headers = { Accept: "text/event-stream" };
  const streamed = await everything(client.get(`/fine_tuning/jobs/${id}/events`, { stream: true, headers }));
  const paged = await everything(client.fineTuning.jobs.listEvents(id, { limit: 5 }));
  assert.deepEqual(ids(streamed), ids(paged).reverse());
  saw("fine_tuning.jobs.events, streamed", { count: streamed.length, last: streamed.at(-1).message });
  saw("fine_tuning.jobs.list_events", { count: paged.length });
}
