// `client.files` and `client.uploads`.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";

import { client, conversations, everything, ids, saw, toFile } from "./asking.mjs";

const CONTENT = Buffer.from(conversations(0, 12));
const HALF = Math.floor(CONTENT.length / 2);

/** Files are made, found, read and deleted. */
export async function tryFiles() {
  const made = [];
  for (const count of [0, 1, 2]) {
    const file = await client.files.create({
      file: await toFile(CONTENT, `numbers-${count}.jsonl`),
      purpose: "fine-tune",
      expires_after: { anchor: "created_at", seconds: 3600 },
    });
    assert.equal(file.expires_at, file.created_at + 3600);
    made.push(file);
  }
  saw("files.create", { id: made[0].id, bytes: made[0].bytes });
  const found = await everything(client.files.list({ purpose: "fine-tune", limit: 2 }));
  assert.deepEqual(ids(found), ids(made).reverse());
  saw("files.list", { ids: ids(found) });
  assert.deepEqual(await client.files.retrieve(made[0].id), made[0]);
  saw("files.retrieve", { id: made[0].id });
  const content = await client.files.content(made[0].id);
  assert.deepEqual(Buffer.from(await content.arrayBuffer()), CONTENT);
  saw("files.content", { bytes: CONTENT.length });
  for (const { id } of made) assert.deepEqual(await client.files.delete(id), { id, object: "file", deleted: true });
  saw("files.delete", { ids: ids(made) });
}

/** Parts are sent, found again, put together, given up. */
export async function tryUploads() {
  const upload = await announced();
  const first = await client.uploads.parts.create(upload.id, { data: await toFile(CONTENT.subarray(0, HALF)) });
  saw("uploads.create", { id: upload.id });
  saw("uploads.parts.create", { id: first.id });
  const arrived = await client.get(`/uploads/${upload.id}/parts`);
  assert.deepEqual(ids(arrived.data), [first.id]);
  const second = await client.uploads.parts.create(upload.id, { data: await toFile(CONTENT.subarray(HALF)) });
  saw("uploads, gone on with", { arrived: ids(arrived.data), sent: second.id });
  const md5 = createHash("md5").update(CONTENT).digest("hex");
  const done = await client.uploads.complete(upload.id, { part_ids: [first.id, second.id], md5 });
  assert.equal(done.status, "completed");
  assert.equal(done.file.bytes, CONTENT.length);
  saw("uploads.complete", { file: done.file.id });
  await client.files.delete(done.file.id);
  const cancelled = await client.uploads.cancel((await announced()).id);
  assert.equal(cancelled.status, "cancelled");
  saw("uploads.cancel", { id: cancelled.id });
}

function announced() {
  return client.uploads.create({
    filename: "numbers.jsonl",
    purpose: "fine-tune",
    bytes: CONTENT.length,
    mime_type: "application/jsonl",
  });
}
