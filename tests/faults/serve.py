"""Forks an API process for each port that comes in, a line each; what they import, they import once, beforehand."""

import os
import signal
import sys

import api.main
from api.serving import run
from core.processes import die_with_parent

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
parent = os.getpid()
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        die_with_parent(parent)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        run(api.main.app, host="127.0.0.1", port=int(line))
        os._exit(0)
    sys.stdout.write(f"{pid}\n")
    sys.stdout.flush()
