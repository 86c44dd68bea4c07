"""Runs an API process for each inherited socket, as uvicorn does; what they import, they import once, together."""

import os
import sys

import uvicorn

import api.main

pids = []
for descriptor in map(int, sys.argv[1:]):
    pid = os.fork()
    if pid == 0:
        uvicorn.run(api.main.app, fd=descriptor, access_log=False)
        os._exit(0)
    pids.append(pid)
sys.stdout.write(f"{' '.join(map(str, pids))}\n")
sys.stdout.flush()
for pid in pids:
    os.waitpid(pid, 0)
