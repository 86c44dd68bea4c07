"""Runs the API: `python -m api [--host HOST] [--port PORT] [--fd DESCRIPTOR]`."""

from __future__ import annotations

import argparse

from api.serving import run


def main() -> None:
    """Serve on an address, or on a socket that is bound already."""
    parser = argparse.ArgumentParser(prog="python -m api", description="The API of Weightworks.")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="the port to listen on")
    parser.add_argument("--fd", type=int, help="a socket to serve instead, by its descriptor")
    options = parser.parse_args()
    run("api.main:app", host=options.host, port=options.port, fd=options.fd)


if __name__ == "__main__":
    main()
