"""Calls of functions in processes of their own, here or on a cluster, and tasks made of such calls.

calls     what is called, what comes of it, what an executor does; `run_tasks`
local     processes of this machine
cluster   the same processes on the nodes of a Ray cluster (optional)
worker    what runs in such a process
"""

from vidcodec.executor.calls import Call, Executor, Outcome, Task, run_tasks
from vidcodec.executor.local import LocalExecutor, open_executor

__all__ = ["Call", "Executor", "LocalExecutor", "Outcome", "Task", "open_executor", "run_tasks"]
