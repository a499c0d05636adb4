"""`overnight bench`: what this machine makes of the presets."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ..errors import UserError
from ..settings import read_preset
from ..shown import printable
from . import Flag, Whole, loading, write_json

if TYPE_CHECKING:
    from ..training.bench import Machine, Measured


FORMS = ("{:,.0f}", "{:.0%}", "{:.0%}")  # of tokens per second and the two shares


def bench(
    *,
    preset: Annotated[list[str] | None, Parameter(negative="")] = None,
    seconds: float = 3.0,
    device: str = "auto",
    threads: Whole = 0,
    json: Flag = False,
) -> int:
    """Measure what this machine does: the rate of its matrix products and of its memory, then
    for each preset tokens per second of whole updates, their share of that rate, and what limits
    them.

    Parameters
    ----------
    preset
        Only this one; may be given more than once. Default: all, small ones first.
    seconds
        Of updates for each preset.
    device
        auto, cpu, cuda or mps.
    threads
        CPU threads; 0: one for each core.
    json
        Print one object on stdout: machine and presets.
    """
    for name in preset or []:
        read_preset(name)  # a name that is none is said before torch is loaded
    if not 0 < seconds < float("inf"):
        raise UserError(f"--seconds {seconds} makes no sense.")
    if threads < 0:
        raise UserError(f"--threads {threads} makes no sense.")
    with loading():
        from ..training import bench as room
        from ..training.progress import Progress

    names, rows = preset or room.by_size(), []
    with Progress() as progress:
        progress.show("matrix products and memory …")
        machine = room.measure_machine(device, threads)
        begin = time.monotonic()
        progress.show(f"{names[0]}  1 of {len(names)}")
        for row in room.measure(names, machine, seconds):
            rows.append(row)
            left = (len(names) - len(rows)) * (time.monotonic() - begin) / len(rows)
            if left:
                following = names[len(rows)]
                progress.show(
                    f"{following}  {len(rows) + 1} of {len(names)}  ETA about {left:.0f} s"
                )
    if json:
        write_json({"machine": machine, "presets": rows})
    else:
        _show(machine, rows)
    return 0


def _show(machine: Machine, rows: list[Measured]) -> None:
    rates = ", ".join(f"{dtype} {flops / 1e9:,.0f}" for dtype, flops in machine.flops.items())
    threads = f", {machine.threads} threads" if machine.device == "cpu" else ""
    form = "{:<16} {:>12} {:<9} {:>10} {:>10} {:>11}  {}"
    lines = [
        f"{machine.device}: {machine.name}{threads}",
        f"matrix products, GFLOP/s: {rates}",
        f"memory, GB/s: {machine.bandwidth / 1e9:,.1f}",
        "",
        form.format(
            "preset", "parameters", "dtype", "tok/s", "of ceiling", "in products", "limited by"
        ),
        *(form.format(*_cells(row)) for row in rows),
    ]
    sys.stdout.write(printable("\n".join(lines)) + "\n")


def _cells(row: Measured) -> list[str]:
    figures = (row.tokens_per_second, row.share, row.products)
    shown = ["–" if x is None else form.format(x) for x, form in zip(figures, FORMS, strict=True)]
    limit = row.limit or f"skipped: {row.skipped}"
    return [row.preset, f"{row.parameters:,}", row.dtype, *shown, limit]
