"""`make openai-example`: a script for the hosted API fine-tunes SmolLM2-135M-Instruct here, with nothing changed in it.

The script is `fine_tune.py`. It hears of this server from OPENAI_BASE_URL and OPENAI_API_KEY, as it would of any, and
asks for a hosted model: SmolLM2 is uploaded under that name.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.quality.fine_tuning_texts import smollm2
from examples.demo.__main__ import console, server
from examples.hosted.data import write_conversations
from weightworks.client import Client
from weightworks.display import size
from weightworks.errors import WeightworksError
from weightworks.files import MODEL

SCRIPT = Path(__file__).with_name("fine_tune.py")
CLIENT = Path(__file__).parents[2] / ".cache" / "clients" / "openai-3"
NAME = "gpt-4o-mini-2024-07-18"  # what the script asks for


def main() -> None:
    """The whole example."""
    started_at = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="weightworks-hosted-") as place:
        folder = Path(place)
        console.print("[bold]1.[/] Writing LLaMA-Factory's instructions as the hosted API takes them")
        for name, count in write_conversations(folder).items():
            console.print(f"   {name}: {count} conversations", highlight=False)
        console.print("[bold]2.[/] Starting Weightworks, and uploading SmolLM2-135M-Instruct")
        home = folder / "home"
        home.mkdir()
        with server(home) as ours:
            upload_base(ours)
            console.print(f"[bold]3.[/] python {SCRIPT.name}, which knows nothing of Weightworks", highlight=False)
            run_script(ours, folder)
    console.print(f"All of it took {time.monotonic() - started_at:.0f} s.", highlight=False)


def upload_base(ours: Client) -> None:
    """Upload the base under the name that the script asks for."""
    file = ours.files.upload(smollm2() / "model.gguf", purpose=MODEL, filename=f"{NAME}.gguf")
    console.print(f"   {file.filename}: {size(file.bytes)}", highlight=False)


def run_script(ours: Client, folder: Path) -> None:
    """Run the script with the `openai` client alone, as somebody has it who never heard of Weightworks."""
    environment = {
        **os.environ,
        "OPENAI_BASE_URL": f"{ours.connection.base_url}/v1",
        "OPENAI_API_KEY": ours.connection.api_key or "",
        "PYTHONPATH": str(CLIENT),
        "PYTHONUNBUFFERED": "1",
    }
    subprocess.run([sys.executable, "-S", str(SCRIPT)], cwd=folder, env=environment, check=True)


if __name__ == "__main__":
    try:
        main()
    except WeightworksError as error:
        raise SystemExit(f"error: {error.message}") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(error.returncode) from None
    except KeyboardInterrupt:
        console.print("\nInterrupted; Weightworks is stopped.")
        raise SystemExit(130) from None
