"""The processes of one training: those a `torchrun` started, or this one alone."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor


class Workers:
    """The processes of a `torchrun`, or this one alone; `device` is auto, cpu or cuda."""

    def __init__(self, device: str) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        cuda = torch.cuda.is_available() if device == "auto" else device == "cuda"
        local = int(os.environ.get("LOCAL_RANK", "0")) % max(1, torch.cuda.device_count() if cuda else 1)
        self.device = torch.device("cuda", local) if cuda else torch.device("cpu")
        if self.count > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if cuda else "gloo")

    @property
    def first(self) -> bool:
        return self.rank == 0

    def average_gradients(self, parameters: list[Tensor]) -> None:
        """Replace every gradient by its mean over the workers."""
        grads = [p.grad for p in parameters if p.grad is not None]
        if self.count == 1 or not grads:
            return
        flat = torch.cat([g.flatten() for g in grads])
        dist.all_reduce(flat)
        flat /= self.count
        for g, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
            g.copy_(part.view_as(g))

    def agree(self, value: float) -> float:
        """The first worker's value."""
        if self.count == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(shared, 0)
        return float(shared)

    def close(self) -> None:
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()
