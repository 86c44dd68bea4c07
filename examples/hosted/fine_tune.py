"""Fine-tune a chat model with the hosted API: upload, train, and compare its answers before and after.

Set OPENAI_API_KEY, put training.jsonl and validation.jsonl beside you, and run this file.
"""
# ruff: noqa: T201 -- it is a script, and prints

import time

from openai import OpenAI

MODEL = "gpt-4o-mini-2024-07-18"
QUESTIONS = ["Who are you?", "Who created you?", "Are you made by OpenAI?", "Name three primary colors."]

client = OpenAI()


def ask(model):
    """Print the model's answers."""
    for question in QUESTIONS:
        completion = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": question}], temperature=0, max_tokens=48
        )
        print(f"  {question}\n    {completion.choices[0].message.content.strip()}")


print(f"Before: {MODEL}")
ask(MODEL)

with open("training.jsonl", "rb") as training, open("validation.jsonl", "rb") as validation:
    training_file = client.files.create(file=training, purpose="fine-tune")
    validation_file = client.files.create(file=validation, purpose="fine-tune")
print(f"Uploaded {training_file.id} and {validation_file.id}")

job = client.fine_tuning.jobs.create(
    model=MODEL,
    training_file=training_file.id,
    validation_file=validation_file.id,
    suffix="identity",
    seed=0,
    method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 4}}},
)
print(f"Created {job.id}, {job.method.supervised.hyperparameters.model_dump()}")

while job.status not in ("succeeded", "failed", "cancelled"):
    time.sleep(10)
    job = client.fine_tuning.jobs.retrieve(job.id)
    finish = f", about {max(job.estimated_finish - time.time(), 0):.0f} s to go" if job.estimated_finish else ""
    print(f"  {job.status}{finish}")
if job.status != "succeeded":
    raise SystemExit(f"The job {job.status}: {job.error.message if job.error else ''}")

print("The last of what happened:")
for event in reversed(client.fine_tuning.jobs.list_events(job.id, limit=6).data):
    print(f"  {event.message}")
print("Results:")
print(client.files.content(job.result_files[0]).text.splitlines()[0])
print(client.files.content(job.result_files[0]).text.splitlines()[-1])

print(f"After: {job.fine_tuned_model}, {job.trained_tokens} tokens trained")
ask(job.fine_tuned_model)
