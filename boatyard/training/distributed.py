"""Several processes train one model: each computes its rows of every batch, and all take the same step.

A run on many processes is the run on one, up to the order in which float32 sums are taken: the global batches, the
learning rates and the random numbers are those of one process, the loss is taken of the whole batch's outputs, and the
gradients are summed. Processes are started by torchrun, which names each its rank. Nothing is sent as a pickle.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from boatyard.errors import ConfigError, PeerLost
from boatyard.settings import Settings
from boatyard.training.loader import WHOLE, Part
from boatyard.training.signals import Stop

logger = logging.getLogger(__name__)
START = timedelta(minutes=30)  # until all have read their data; and for rank 0 to write while the others wait
T = TypeVar("T")


@dataclass
class World:
    """The processes of one run, here the only one: nothing is sent, every method gives back what it got."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    part: Part = WHOLE
    stop: Stop = field(default_factory=Stop)
    due: bool = field(default=False, init=False)  # whether all are to save, as agreed in the last step

    @property
    def first(self) -> bool:
        """Whether this process writes what the run leaves."""
        return self.part.rank == 0

    @property
    def asked(self) -> str | None:
        """The signal that asks all to stop, as agreed in the last step."""
        return self.stop.asked

    def derived(self) -> dict[str, Any]:
        """Return what is to be said of the processes."""
        return {}

    def every(self, flag: bool) -> bool:
        """Return whether a flag is set in every process."""
        return flag

    def wait(self) -> None:
        """Wait until every process is here."""

    def same(self, data: bytes) -> bytes:
        """Return the first process's bytes."""
        return data

    def gathered(self, data: bytes) -> list[bytes]:
        """Return the bytes of every process, to the first; to the others nothing."""
        return [data]

    def whole(self, made: Tensor, rows: int) -> Tensor:
        """Return all rows of a batch, of which this process made some; gradients flow through its own."""
        return made

    def sum_gradients(self, model: nn.Module, due: bool = False) -> None:
        """Add up every process's gradients, and agree on whether to stop and, by the first's clock, to save."""
        self.due = due

    def batch(self, rows: int) -> contextlib.AbstractContextManager[Any]:
        """Within the block a model computes its part of a batch as one process would compute the whole."""
        return contextlib.nullcontext()


@dataclass
class Peers(World):
    """One process of several: what `World` describes, by collective operations that every process calls in turn.

    Raises PeerLost when another process is gone, or silent for `Settings.patience` seconds.
    """

    backend: str = "gloo"
    steps: Any = None  # the group of the steps, whose timeout is short; the default group's is START
    heard: str | None = None

    @property
    def asked(self) -> str | None:
        return self.heard

    def derived(self) -> dict[str, Any]:
        return {"processes": self.part.size, "backend": self.backend}

    def every(self, flag: bool) -> bool:
        found = torch.tensor([float(flag)], device=self.device)
        self._do(lambda: dist.all_reduce(found, dist.ReduceOp.MIN))
        return bool(found.item())

    def wait(self) -> None:
        self.every(True)

    def same(self, data: bytes) -> bytes:
        size = torch.tensor([len(data)], device=self.device)
        self._do(lambda: dist.broadcast(size, 0))
        return self._sent(data, 0, int(size))

    def gathered(self, data: bytes) -> list[bytes]:
        sizes = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.part.size)]
        own = torch.tensor([len(data)], device=self.device)
        self._do(lambda: dist.all_gather(sizes, own, group=self.steps))
        found = [self._sent(data, rank, int(size)) for rank, size in enumerate(sizes)]
        return found if self.first else []

    def _sent(self, data: bytes, rank: int, size: int) -> bytes:
        """Return the bytes of one process, whose number all know."""
        if not size:
            return b""  # a tensor of none cannot be made of a buffer
        own = self.part.rank == rank
        sent = torch.frombuffer(bytearray(data), dtype=torch.uint8) if own else torch.empty(size, dtype=torch.uint8)
        sent = sent.to(self.device)
        self._do(lambda: dist.broadcast(sent, rank))
        return sent.cpu().numpy().tobytes()

    def whole(self, made: Tensor, rows: int) -> Tensor:
        counts = [Part(rank, self.part.size).count(rows) for rank in range(self.part.size)]
        own = made[: counts[self.part.rank]]
        sent = made.new_zeros((max(counts), *made.shape[1:]))
        sent[: len(own)] = own.detach()
        pieces = [torch.empty_like(sent) for _ in counts]
        self._do(lambda: dist.all_gather(pieces, sent, group=self.steps))
        found = [piece[:count] for piece, count in zip(pieces, counts, strict=True)]
        found[self.part.rank] = own
        return torch.cat(found)

    def sum_gradients(self, model: nn.Module, due: bool = False) -> None:
        """Sum in one piece; at its end a flag for each weight that has a gradient somewhere, to stop, and to save."""
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        grads = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
        flags = [float(w.grad is not None) for w in weights]
        flags += [float(self.stop.asked is not None), float(due and self.first)]
        sent = torch.cat([*(grad.reshape(-1) for grad in grads), torch.tensor(flags, device=self.device)])
        self._do(lambda: dist.all_reduce(sent, group=self.steps))
        *present, asked, save = sent[-len(flags) :].tolist()
        summed = sent[: -len(flags)].split([weight.numel() for weight in weights])
        for weight, grad, total, there in zip(weights, grads, summed, present, strict=True):
            weight.grad = grad.copy_(total.view_as(grad)) if there else None
        self.heard = (self.stop.asked or "a signal to another process") if asked else None
        self.due = bool(save)

    def batch(self, rows: int) -> contextlib.AbstractContextManager[Any]:
        return WholeBatch(self, rows)

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of every process's values; gradients are summed likewise on their way back."""
        made: Tensor = _Sum.apply(value, self)  # type: ignore[no-untyped-call]
        return made

    def sum_(self, value: Tensor) -> Tensor:
        """Sum in place."""
        self._do(lambda: dist.all_reduce(value, group=self.steps))
        return value

    def _do(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except RuntimeError as error:  # what gloo and NCCL say, one line of many
            reason = str(error).strip().splitlines()[0][:300]
            raise PeerLost(
                f"rank {self.part.rank} of {self.part.size} lost the others ({reason})",
                fix=("see the log of the rank that ended first; started again, all go on from the last state"),
            ) from error


class _Sum(torch.autograd.Function):
    """A sum over processes, each of which computes the same loss but only its own rows' part of the gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, world: Peers) -> Tensor:
        ctx.world = world
        return world.sum_(value.clone())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.world.sum_(grads[0].contiguous()), None


class WholeBatch(TorchFunctionMode):
    """Within the block dropout draws for the whole batch, and batch norm measures all of its rows.

    Dropout takes this process's rows of what one process would have drawn (on CPUs; a GPU draws in another order).
    Other random numbers that a model draws for itself differ from rank to rank.
    """

    def __init__(self, world: Peers, rows: int) -> None:
        super().__init__()
        self.world, self.rows, self.part = world, rows, world.part.of(rows)
        self.own = world.part.count(rows)
        source = torch.default_generator
        if world.device.type == "cuda":
            source = torch.cuda.default_generators[world.device.index or 0]
        self.generator = torch.Generator(world.device)
        self.generator.set_state(source.get_state())
        source.manual_seed((source.initial_seed() + world.part.rank) % 2**63)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.dropout:
            return self.dropout(*args, **(kwargs or {}))
        if func is functional.batch_norm:
            return self.batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p in (0, 1) or len(input) != self.part.stop - self.part.start:
            return functional.dropout(input, p, training, inplace)
        shape = (self.rows, *input.shape[1:])
        mask = torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=_format(input))
        mask.bernoulli_(1 - p, generator=self.generator).div_(1 - p)
        return input * mask[self.part]

    def batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return functional.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
        values = input.float()
        others = [0, *range(2, input.dim())]
        shape = (1, -1, *[1] * (input.dim() - 2))
        measured = values if self.own else values[:0]  # a row that only fills in is not counted
        count = self.counted(values, measured)
        mean = self.world.sum(measured.sum(others)) / count
        centred = values - mean.view(shape)
        squares = centred.square() if self.own else centred[:0]
        variance = self.world.sum(squares.sum(others)) / count
        with torch.no_grad():
            if running_mean is not None and running_var is not None:
                running_mean.mul_(1 - momentum).add_(mean, alpha=momentum)
                running_var.mul_(1 - momentum).add_(variance, alpha=momentum * count / max(count - 1, 1))
        made = centred * torch.rsqrt(variance + eps).view(shape)
        if weight is not None:
            made = made * weight.view(shape)
        if bias is not None:
            made = made + bias.view(shape)
        return made.to(input.dtype)

    def counted(self, values: Tensor, measured: Tensor) -> float:
        """Return how many values of a channel all processes have together."""
        if len(values) == self.part.stop - self.part.start:
            return self.rows * values[0, 0].numel()
        return self.world.sum_(values.new_tensor([measured.numel() / values.shape[1]])).item()


def _format(value: Tensor) -> torch.memory_format:
    dense = value.dim() == 4 and not value.is_contiguous() and value.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if dense else torch.contiguous_format


@contextlib.contextmanager
def joined(device: torch.device, stop: Stop) -> Iterator[World]:
    """Join the processes that torchrun started for this run, or be the only one.

    Raises ConfigError when they do not train on the same kind of device, PeerLost when one does not come.
    """
    settings = Settings()
    if settings.processes == 1:
        yield World(device, stop=stop)
        return
    part = Part(settings.rank, settings.processes)
    device = _own(device, settings.local_rank)
    backend = "nccl" if device.type == "cuda" and dist.is_nccl_available() else "gloo"
    world = Peers(device, part, stop, backend)
    with stop.at_once():  # what waits for its peers in C++ hears no signal
        world._do(lambda: _meet(world))
    world.steps = dist.new_group(timeout=timedelta(seconds=settings.patience))
    yield world
    dist.destroy_process_group()  # not after an error: who is gone cannot be waited for


def _own(device: torch.device, local_rank: int) -> torch.device:
    """Return this process's own device of its node."""
    if device.type != "cuda":
        return device
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"train.gpus: process {local_rank + 1} of this node finds {torch.cuda.device_count()} "
            "GPUs, expected one for each process",
            fix="give the node more or the run fewer",
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def _meet(world: Peers) -> None:
    """Compare devices by the store that torchrun keeps, then connect: mixed backends would only wait for each other."""
    store, rank, size = next(rendezvous("env://", timeout=START))
    own = PrefixStore("boatyard", store)
    own.set(f"device/{rank}", world.device.type)
    kinds = [own.get(f"device/{other}").decode() for other in range(size)]
    if len(set(kinds)) > 1:
        found = ", ".join(f"rank {other} {kind}" for other, kind in enumerate(kinds))
        raise ConfigError(
            f"every process must train on the same kind of device, found {found}",
            fix="give every node the same GPUs, or train.device=cpu",
        )
    dist.init_process_group(world.backend, store=own, rank=rank, world_size=size, timeout=START)
