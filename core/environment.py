"""The environment of a process that learns: no credentials, and what keeps it the same from run to run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

HUB = {  # no other address than the hub's, no token of this machine's, nothing for a terminal
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
OURS = ("WEIGHTWORKS_", "CELERY_", "REDIS", "DATABASE", "BROKER", "PG", "AWS_")
SECRETS = ("PASSWORD", "SECRET", "TOKEN", "_KEY", "_DSN")


def learning_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What such a process may see of our environment, and what it is to see."""
    kept = {name for name in environment if not name.upper().startswith(OURS) and not name.upper().endswith(SECRETS)}
    return {
        **{name: environment[name] for name in sorted(kept)},
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # else asking for a GPU would make CUDA unusable after a fork
        "HF_HUB_OFFLINE": "1",
        # The number of threads decides in which order sums are added: it must not depend on how busy the machine is.
        "MKL_DYNAMIC": "FALSE",
        "OMP_DYNAMIC": "FALSE",
        # OpenMP's threads spin while they wait, 300,000 times. Where another process wants the core that the last
        # thread works on, that made training four times slower (2 cores, 4 busy processes); 1,000 times did not.
        "GOMP_SPINCOUNT": environment.get("GOMP_SPINCOUNT", "1000"),
    }


def hub_environment(environment: Mapping[str, str], *, url: str, home: Path) -> dict[str, str]:
    """What a process that fetches from a hub may see, and what keeps it to that hub."""
    kept = {name: value for name, value in learning_environment(environment).items() if not name.startswith("HF_")}
    return {**kept, **HUB, "HF_ENDPOINT": url, "HF_HOME": str(home)}
