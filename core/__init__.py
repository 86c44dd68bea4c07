"""What training is, and what a job is: no web and no task queue in here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.networks.loading import load_model

__all__ = ["load_model"]


def __getattr__(name: str) -> Any:
    """Load torch only when a model is asked for: the jobs table and the settings live in this package too."""
    if name == "load_model":
        from core.networks.loading import load_model

        return load_model
    raise AttributeError(f"module 'core' has no attribute '{name}'")
