"""The command line of an agent, as its supervisor is told to start it."""

import argparse
import os

from jarvis.core.resources import parse_byte_list, parse_bytes


def container_mounts(options: argparse.Namespace) -> tuple[str, ...]:
    """What containers may mount: as set, else anything, but nothing where the agent serves several users as root."""
    if options.container_mounts is not None:
        return tuple(os.path.realpath(path) for path in options.container_mounts.split(os.pathsep) if path)
    return () if os.geteuid() == 0 and not options.allow_root else ("/",)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="jarvis-agent", description="The agent of a node; started by its supervisor.")
    parser.add_argument("--dir", required=True)
    parser.add_argument("--url", action="append", default=[])
    parser.add_argument("--token-file")
    parser.add_argument("--credentials", help="directory of a node that has joined; instead of --url and --token-file")
    parser.add_argument("--server-file", help="directory whose server.json tells where the server is now")
    parser.add_argument("--name")
    parser.add_argument("--cpus", type=float)
    parser.add_argument("--memory", "--mem", type=parse_bytes)
    parser.add_argument("--gpus", type=float)
    parser.add_argument("--gpu-memory", type=parse_byte_list, default=(), help="of each, or one for all: 24Gi,8Gi")
    parser.add_argument("--label", type=_pair, action="append", default=[])
    parser.add_argument("--taint", action="append", default=[])
    parser.add_argument("--allow-root", action="store_true")
    parser.add_argument("--proxy", help="HTTP proxy on the way to the servers; NO_PROXY is respected")
    parser.add_argument("--health-check", default="")
    parser.add_argument("--health-interval", type=float, default=60.0)
    parser.add_argument("--prolog", default="")
    parser.add_argument("--epilog", default="")
    parser.add_argument("--hook-timeout", type=float, default=30.0)
    parser.add_argument("--file-cache", type=parse_bytes, default=10 * 1024**3, help="for files that tasks are sent")
    parser.add_argument(
        "--watch", action="append", default=[], help="directory below which schedules may wait for files"
    )
    parser.add_argument("--container-mounts", help=f"host paths that containers may mount, separated by {os.pathsep!r}")
    return parser.parse_args(argv)
