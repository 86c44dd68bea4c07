"""`python -m worker`: one worker, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import sys

from worker.app import ARGUMENTS, app

if __name__ == "__main__":
    app.worker_main([*ARGUMENTS, *sys.argv[1:]])
