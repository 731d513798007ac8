"""Ray, for work on many machines: joined quietly, or started on this machine alone."""

import importlib
import logging
import os
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from flowseg.errors import ArgumentError

# This machine's own Ray has no page, and does not take a machine for dead that is merely busy.
_ALONE = {
    "address": "local",
    "include_dashboard": False,
    "_system_config": {
        "health_check_timeout_ms": 60_000,
        "health_check_failure_threshold": 20,
    },
}


def connect(
    address: str | None = None, library: str = "ray", extra: str = "ray", code: Sequence[str] = ()
) -> ModuleType:
    """Join a Ray cluster, or start one of this machine alone; `ray.shutdown` leaves it.

    Args:
        address: of a running cluster; None or "local": of this machine alone.
        library: which part of Ray will be used.
        extra: the extra of this package that brings it.
        code: packages of this repository that are sent to the machines.

    Returns:
        The module `ray`.

    Raises:
        ValueError: Ray is missing, or there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    alone = address in (None, "local")
    if alone:
        # Ray's own ports are open to the network: to those who know this.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        import ray

        importlib.import_module(library)
    except ImportError as error:
        raise ValueError(f"{library} is missing: pip install -e '.[{extra}]'") from error
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not alone:
        _check(address)
    root = Path(__file__).parent.parent
    # Ray stumbles over an empty list.
    sent = {"runtime_env": {"py_modules": [str(root / name) for name in code]}} if code else {}
    ray.init(**(quiet | sent | (_ALONE if alone else {"address": address})))
    return ray


def _check(address):
    """Raises ArgumentError where nobody listens: Ray would wait for minutes without a word."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # "auto" and the like: Ray looks for it.
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ArgumentError(
            f"ray_address={address}: no Ray cluster answers there ({error})", "ray_address"
        ) from error
