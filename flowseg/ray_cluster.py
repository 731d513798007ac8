"""Joins a Ray cluster for work on many machines, or starts Ray on this machine only."""

import importlib
import logging
import os
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from flowseg.errors import ArgumentError

# A local Ray has no dashboard, and health-check limits that tolerate a busy machine.
_LOCAL = {
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
    """Join a Ray cluster, or start one on this machine only; `ray.shutdown` leaves it.

    Args:
        address: address of a running cluster; None or "local" starts one on this machine.
        library: module of Ray that must be importable.
        extra: extra of this package that installs the module.
        code: packages of this repository to send to the machines.

    Returns:
        The `ray` module.

    Raises:
        ValueError: Ray is not installed or does not start, or there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    local = address in (None, "local")
    if local:
        # Ray's ports are open to the network; the token restricts them to this process.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        import ray

        importlib.import_module(library)
    except ImportError as error:
        raise ValueError(f"{library} is missing: pip install -e '.[{extra}]'") from error
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not local:
        _check(address)
    root = Path(__file__).parent.parent
    # Ray fails on an empty list.
    runtime = {"runtime_env": {"py_modules": [str(root / name) for name in code]}} if code else {}
    try:
        ray.init(**(quiet | runtime | (_LOCAL if local else {"address": address})))
    except Exception as error:  # Ray raises Exception itself when its processes start too slowly.
        raise ValueError(
            f"Ray does not start (ray_address={address or 'local'}): {error}; is the machine busy?"
        ) from error
    return ray


def _check(address):
    """Raise ArgumentError if nothing listens there; Ray itself would wait silently for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # Names such as "auto", which Ray resolves.
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ArgumentError(
            f"ray_address={address}: no Ray cluster responds there ({error})", "ray_address"
        ) from error
