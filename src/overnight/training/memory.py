"""Whether an update fits into memory, and the micro-batch that does."""

from __future__ import annotations

import gc

import numpy as np
import psutil
import torch

from ..config import Config
from ..errors import UserError
from ..model.decoder import count_parameters
from ..model.size import checkpoint_bytes, memory_bytes
from ..wording import size
from . import limits
from .update import FAR, Updater

# Of the free memory that an estimate may fill: the peak is 0.8 to 1.2 of it, and torch itself takes
# 0.4 GB (docs/lab-notes.md, E40, E84)
SHARE = 0.6


def memory(device: torch.device) -> tuple[int, int]:
    """Bytes of memory that are free for this process, and all that it could have."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return free, total
    machine, (left, most) = psutil.virtual_memory(), limits.memory()
    return int(min(machine.available, left)), int(min(machine.total, most))


def with_micro_batch(config: Config, micro: int) -> Config:
    return config.having(train={"micro_batch": micro})


def _eager(config: Config) -> Config:
    """For a trial: compiling each would take minutes, and compiled updates take no more memory."""
    return config.having(train={"compile": "off"})


def divisors(config: Config) -> list[int]:
    """The micro-batches that there can be, the largest first."""
    batch = config.train.batch
    return [micro for micro in range(batch, 0, -1) if batch % micro == 0]


def needed(config: Config, micro: int = 0) -> int:
    """Bytes that training takes, estimated; with micro-batches of `micro`, if given."""
    config = with_micro_batch(config, micro) if micro else config
    return memory_bytes(config, count_parameters(config.model))


def estimated(config: Config, free: int) -> int:
    """The largest micro-batch whose estimate fits into `free` bytes; 0: not one sequence does."""
    fitting = (micro for micro in divisors(config) if needed(config, micro) <= SHARE * free)
    return next(fitting, 0)


def check_micro_batch(batch: int, micro: int) -> None:
    if batch % micro:
        raise UserError(f"train.batch = {batch} is not a multiple of train.micro_batch = {micro}.")


def largest(config: Config, train: np.ndarray, device: torch.device) -> int:
    """The largest micro-batch with which an update runs: tried; on the CPU, where the system may
    end a process that asks for too much, only what the estimate allows is tried."""
    free, _ = memory(device)
    most = estimated(config, free) if device.type == "cpu" else config.train.batch
    for micro in divisors(config):
        if micro > most:
            continue
        try:
            Updater(_eager(with_micro_batch(config, micro)), train, device).update(1, FAR)
            return micro
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        release(device)
    raise UserError(advice(config, device), 1)


def release(device: torch.device) -> None:
    """Give back what a failed update held."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    words = ("not enough memory", "can't allocate memory", "out of memory")
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(w in text for w in words)


def refusal(error: Exception, config: Config, device: torch.device) -> Exception:
    """What to raise for `error`: where memory is what is missing, what would fit."""
    return UserError(advice(config, device), 1) if is_out_of_memory(error) else error


def advice(config: Config, device: torch.device) -> str:
    """What would fit, in numbers."""
    free, _ = memory(device)
    micro = config.train.micro_batch
    micro = micro if micro > 0 else config.train.batch
    smaller = [m for m in divisors(config) if m < micro and needed(config, m) <= SHARE * free]
    said = (
        f"out of memory: micro-batches of {micro} sequences take about "
        f"{size(needed(config, micro))}, {size(free)} are free; "
    )
    if not smaller:
        one = size(needed(config, 1))
        return said + f"one sequence takes about {one}: take a smaller model or model.context"
    best = smaller[0]
    return said + (
        f"train.micro_batch = {best} would take about {size(needed(config, best))} "
        "and leave the batch as it is (auto tries it out)"
    )


def check(config: Config, device: torch.device) -> None:
    """Refuse, before memory is taken, a model that no micro-batch makes fit."""
    try:
        parameters = count_parameters(config.model)
    except (RuntimeError, OverflowError, TypeError) as error:
        raise UserError(f"This model is too large to count: {error}.".split("\n")[0]) from None
    least = checkpoint_bytes(config, parameters) + 4 * parameters["total"]
    _, total = memory(device)
    if least > total:
        raise UserError(
            f"The model has {parameters['total']:,} parameters: weights, gradients and optimizer "
            f"state take {size(least)}, {size(total)} are all there is."
        )
