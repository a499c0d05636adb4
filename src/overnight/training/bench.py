"""What a machine does: its ceilings, how near to them each preset trains, what holds it back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial

import msgspec
import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from ..config import AUTO
from ..model.decoder import count_parameters
from ..model.size import describe, flops_per_token, with_vocabulary
from ..settings import Settings, of_preset, preset_names
from ..wording import size
from .forms import choose_form
from .machine import choose_machine, processor_name
from .memory import SHARE, is_out_of_memory, memory, needed, release
from .settle import settle
from .timing import update_seconds, wait
from .update import FAR, Updater

PATIENCE = 5  # times the seconds of a preset that one update of it may be expected to take
LONG = 0.05  # seconds; of a product that is large enough
PROFILED = 3  # updates
PRODUCTS = ("mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "linear", "attention")
SMALL = 0.5  # of the ceiling, below which products are too small for the machine


class Machine(msgspec.Struct, kw_only=True):
    """The ceilings, measured."""

    device: str
    name: str
    threads: int
    flops: dict[str, float]  # of a large matrix product, per second, by dtype
    bandwidth: float  # bytes per second, read and written by a copy
    step_seconds: float  # an operation on next to nothing, with its gradient


class Measured(msgspec.Struct, kw_only=True):
    """One preset. Figures are absent where it was `skipped`, which says why."""

    preset: str
    parameters: int
    dtype: str = ""
    tokens_per_second: float | None = None
    share: float | None = None  # of the ceiling of its dtype; on a GPU this is the MFU
    products: float | None = None  # the part of an update's time that is matrix products
    limit: str = ""
    skipped: str = ""


class Profile(msgspec.Struct):
    """Where the time of an update goes, in seconds."""

    products: float
    others: float
    calls: int  # of operations that are no products


def by_size() -> list[str]:
    """Every preset, small ones first."""
    return sorted(preset_names(), key=lambda name: int(describe(name)["parameters"]))


def measure_machine(device: str, threads: int) -> Machine:
    settings = _machine_settings(device, threads)
    place = settle(settings.get("train.device"), settings.get("train.threads"))
    cuda = place.type == "cuda"
    return Machine(
        device=str(place),
        name=torch.cuda.get_device_name(place) if cuda else processor_name(),
        threads=settings.get("train.threads"),
        flops={
            dtype: product_rate(dtype, place, 8192 if cuda else 2048)
            for dtype in ("float32", "bfloat16")
        },
        bandwidth=_bandwidth(place),
        step_seconds=_step_seconds(place),
    )


def _machine_settings(device: str, threads: int) -> Settings:
    settings = Settings()
    settings.add({"train.device": device, "train.threads": threads}, "command line")
    choose_machine(settings)
    return settings


def product_rate(dtype: str, device: torch.device, size: int = 1024, rounds: int = 5) -> float:
    """Floating-point operations per second of a square matrix product: the best of `rounds`. It is
    smaller than `size` where that takes long: bfloat16 on a CPU that has to emulate it runs at a
    hundredth of the rate of float32."""
    side = min(size, 256)
    # the first of two may load the library
    while side < size and _product_seconds(dtype, device, side, 2) < LONG:
        side *= 2
    return 2 * side**3 / _product_seconds(dtype, device, side, rounds)


def _product_seconds(dtype: str, device: torch.device, side: int, rounds: int) -> float:
    x = torch.ones(side, side, dtype=getattr(torch, dtype), device=device)
    return min(_timed(partial(torch.mm, x, x), device) for _ in range(rounds))


def _bandwidth(device: torch.device) -> float:
    """Of copying what no cache holds."""
    source = torch.ones(2**26, device=device)
    target = torch.empty_like(source)
    best = min(_timed(lambda: target.copy_(source), device) for _ in range(5))
    return 2 * source.nbytes / best


LINKS = 500  # of a chain of operations


def _step_seconds(device: torch.device) -> float:
    """Of one operation on one number, forward or backward: what is not arithmetic."""

    def chain() -> None:
        x = torch.ones(1, device=device, requires_grad=True)
        y = x
        for _ in range(LINKS):
            y = y * 1.0
        y.backward()  # type: ignore[no-untyped-call]

    return min(_timed(chain, device) for _ in range(3)) / (2 * LINKS)


def _timed(call: Callable[[], object], device: torch.device) -> float:
    wait(device)
    begin = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - begin


def measure(names: list[str], machine: Machine, seconds: float) -> Iterator[Measured]:
    """Each preset in turn, for about `seconds`; one that is named alone is given its time."""
    for name in names:
        patience = float("inf") if len(names) == 1 else PATIENCE * seconds
        row = Measured(preset=name, parameters=int(describe(name)["parameters"]))
        try:
            _measure(row, machine, seconds, patience)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            row.skipped = "out of memory"
        release(torch.device(machine.device))
        yield row


def _measure(row: Measured, machine: Machine, seconds: float, patience: float) -> None:
    """Fill in `row`."""
    device = torch.device(machine.device)
    settings = _settings(row.preset, machine)
    config = settings.resolve()
    row.dtype = config.train.dtype
    free, wanted = memory(device)[0], needed(config)
    if wanted > SHARE * free:
        may = size(SHARE * free)
        row.skipped = f"needs {size(wanted)} of memory, {may} may be taken of what is free"
        return
    per_update = config.train.batch * config.model.context
    parts = count_parameters(config.model)
    looked_up = parts.get("ngrams", 0) + (0 if config.model.tied else parts["embed"])
    multiplied = row.parameters - looked_up
    rough = per_update * 6 * multiplied / (SMALL * machine.flops[row.dtype])
    if rough > patience:
        row.skipped = f"an update takes some {rough:,.0f} s; --preset {row.preset} measures it"
        return
    random = np.random.default_rng(0)
    tokens = random.integers(0, config.model.vocab_size, 4 * per_update + 1).astype(np.uint16)
    choose_form(settings, 0, tokens, device)
    updater = Updater(settings.resolve(), tokens, device)
    step_seconds = _update_seconds(updater, seconds)
    found = _profiled(updater)
    work = per_update * flops_per_token(updater.model)
    row.tokens_per_second = per_update / step_seconds
    row.share = work / step_seconds / machine.flops[row.dtype]
    row.products = found.products / (found.products + found.others)
    row.limit = limit(found, row.share, machine.step_seconds)


def _settings(name: str, machine: Machine) -> Settings:
    """As a run of the preset on this machine would have them."""
    settings = of_preset(name)
    settings.add({"train.device": machine.device, "train.threads": machine.threads}, "bench")
    choose_machine(settings)
    vocabulary = with_vocabulary(settings.resolve()).model.vocab_size
    settings.choose("model.vocab_size", vocabulary, "a usual one")
    if settings.get("train.micro_batch") in (0, AUTO):
        settings.choose("train.micro_batch", settings.get("train.batch"), "the whole batch at once")
    return settings


def _update_seconds(updater: Updater, seconds: float) -> float:
    """The median over about `seconds` of updates; the first, which allocates, is left out."""
    updater.update(1, FAR)
    taken: list[float] = []
    while not taken or sum(taken) < seconds:
        taken.append(update_seconds(updater, 2 + len(taken)))
    return float(np.median(taken))


def _profiled(updater: Updater) -> Profile:
    """Where the time goes, from torch's own profiler."""
    cuda = updater.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would talk between the lines of progress
    with profile(activities=activities) as profiler:
        for step in range(PROFILED):
            updater.update(1 + step, FAR)
        wait(updater.device)
    found = Profile(0.0, 0.0, 0)
    for event in profiler.key_averages():
        seconds = (event.self_device_time_total if cuda else event.self_cpu_time_total) / 1e6
        if _is_product(event.key):
            found.products += seconds / PROFILED
        else:
            found.others += seconds / PROFILED
            found.calls += event.count // PROFILED if event.key.startswith("aten::") else 0
    return found


def _is_product(operation: str) -> bool:
    name = operation.removeprefix("aten::").removeprefix("mkldnn::").strip("_")
    return name in PRODUCTS or "attention" in name or "gemm" in name


def limit(found: Profile, share: float, step_seconds: float) -> str:
    """What holds a preset back, in words, from where its time goes."""
    total = found.products + found.others
    part = found.products / total
    if part >= 0.5:
        rate = share / part  # of the ceiling, while products run
        if rate >= SMALL:
            return f"matrix products, at {min(rate, 1):.0%} of the ceiling"
        return f"matrix products too small for the machine: {rate:.0%} of the ceiling"
    if found.calls * step_seconds >= 0.5 * found.others:
        return f"overhead: {found.calls:,} small operations an update besides the products"
    return f"memory bandwidth: {1 - part:.0%} of the time passes outside products"
