"""Calls on the nodes of a Ray cluster: each one in a process of its own there, as `local` starts them.

Every node has this version of vidcodec and the same paths to sources and outputs. Ray starts a call that was lost with
its node on another one.
"""

from __future__ import annotations

import logging
import socket
import time
from typing import Any

import ray
import ray.exceptions

from vidcodec.errors import InputError
from vidcodec.executor.calls import POLL_SECONDS, Call, Executor, Outcome, Running
from vidcodec.executor.local import LocalCall

CONNECT_SECONDS = 10.0
LOST = 5  # times that a call may be lost with its node


class RayExecutor(Executor):
    """The cluster at an address ('auto': the one that this machine belongs to); a call takes `threads` of its cores.

    Raises InputError where there is none.
    """

    def __init__(self, address: str, threads: int = 1) -> None:
        self.threads = threads
        try:
            if address != "auto":  # Ray itself would go on trying for minutes
                host, _, port = address.removeprefix("ray://").rpartition(":")
                socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"there is no Ray cluster at {address}: start one with 'ray start --head'") from error
        self._remote = ray.remote(num_cpus=threads, max_retries=LOST)(_call)

    @property
    def slots(self) -> int:
        """Of the nodes that are there now."""
        return max(1, int(ray.cluster_resources().get("CPU", 1)) // self.threads)

    def start(self, call: Call) -> RayCall:
        return RayCall(self._remote.remote(call, self.threads))

    def close(self) -> None:
        ray.shutdown()


class RayCall(Running):
    """A task of Ray's."""

    def __init__(self, reference: Any) -> None:
        self._reference = reference

    def poll(self) -> Outcome | None:
        ready, _ = ray.wait([self._reference], timeout=0)
        if not ready:
            return None
        try:
            return ray.get(self._reference)
        except ray.exceptions.RayError as error:
            return Outcome(error=str(error).partition("\n")[0])

    def stop(self) -> None:
        ray.cancel(self._reference, force=True)


def _call(call: Call, threads: int) -> Outcome:
    """On a node: the call in a process of its own; that ends with this one."""
    running = LocalCall(call, threads)
    try:
        while (outcome := running.poll()) is None:
            time.sleep(POLL_SECONDS)
    finally:
        running.stop()
    return outcome
