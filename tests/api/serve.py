"""Runs an API process for each inherited socket, as `python -m api` does; what they import, they import once."""

import os
import sys

import api.main
from api.serving import run

pids = []
for descriptor in map(int, sys.argv[1:]):
    pid = os.fork()
    if pid == 0:
        run(api.main.app, fd=descriptor)
        os._exit(0)
    pids.append(pid)
sys.stdout.write(f"{' '.join(map(str, pids))}\n")
sys.stdout.flush()
for pid in pids:
    os.waitpid(pid, 0)
