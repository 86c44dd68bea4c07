// What a job leaves: its result file, its checkpoints, and a model that answers.

import assert from "node:assert/strict";

import { OpenAI, asked, client, everything, ids, place, refused, saw } from "./asking.mjs";

/** The job that succeeded says what it made, and its result file holds a row a step. */
export async function tryResults(job) {
  assert.match(job.fine_tuned_model, /^ft:tiny-llama:.+:sums:.+$/);
  assert.ok(job.trained_tokens > 0);
  saw("fine_tuning.jobs.retrieve, succeeded", { model: job.fine_tuned_model, trained_tokens: job.trained_tokens });
  const rows = (await (await client.files.content(job.result_files[0])).text()).trim().split("\n");
  assert.equal(rows[0].trim(), "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy");
  assert.equal(rows.length, 5);
  saw("files.content, results", { rows: rows.length - 1, last: rows.at(-1) });
}

/** A job of two epochs has a checkpoint for each; another project may be let use one. */
export async function tryCheckpoints(job) {
  const found = await everything(client.fineTuning.jobs.checkpoints.list(job.id, { limit: 1 }));
  assert.deepEqual(found.map((one) => one.step_number), [4, 2]);
  const name = found[0].fine_tuned_model_checkpoint;
  assert.equal(name, `${job.fine_tuned_model}:ckpt-step-4`);
  saw("fine_tuning.jobs.checkpoints.list", { ids: ids(found) });
  const { permissions } = client.fineTuning.checkpoints;
  const [made] = await everything(permissions.create(name, { project_ids: [place["other-project"]] }));
  saw("fine_tuning.checkpoints.permissions.create", { id: made.id });
  assert.deepEqual(ids(await everything(permissions.list(name))), [made.id]);
  saw("fine_tuning.checkpoints.permissions.list", { ids: [made.id] });
  assert.equal((await permissions.delete(made.id, { fine_tuned_model_checkpoint: name })).deleted, true);
  saw("fine_tuning.checkpoints.permissions.delete", { id: made.id });
}

/** The fine-tuned model answers; a stream says what the whole answer says. */
export async function tryServing({ fine_tuned_model: model }) {
  const body = { model, messages: asked(3), max_completion_tokens: 6, temperature: 0 };
  const whole = await client.chat.completions.create(body);
  const chunks = await everything(client.chat.completions.create({ ...body, stream: true }));
  const streamed = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
  assert.equal(streamed, whole.choices[0].message.content);
  saw("chat.completions.create", { text: streamed, usage: whole.usage });
  saw("chat.completions.create, streamed", { chunks: chunks.length });
  const completion = await client.completions.create({ model, prompt: "tell me", max_tokens: 6 });
  saw("completions.create", { text: completion.choices[0].text });
  const [embedded, same] = (await client.embeddings.create({ model, input: ["three", "three"] })).data;
  assert.ok(embedded.embedding.length > 0);
  assert.deepEqual(embedded.embedding, same.embedding);
  saw("embeddings.create", { size: embedded.embedding.length });
}

/** Models are listed under the names that jobs take, and go when they are told to. */
export async function tryModels({ fine_tuned_model: model }, base) {
  const found = await everything(client.models.list());
  assert.ok(ids(found).includes(model) && ids(found).includes(base));
  saw("models.list", { ids: ids(found) });
  assert.equal((await client.models.retrieve(model)).id, model);
  saw("models.retrieve", { id: model });
  assert.equal((await client.models.delete(model)).deleted, true);
  await refused(() => client.models.retrieve(model), OpenAI.NotFoundError);
  saw("models.delete", { id: model });
}
