"""Run campaigns and print one table: `python -m faults [--short] [NAME …]`."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from pathlib import Path

from .tiny import Outcome, own_surroundings

NAMES = (
    "kills", "resume", "powercut", "disk", "corruption", "fuzz", "hostile", "mutants", "cost",
)  # fmt: skip
SHOWN = 20  # failures of one campaign that are printed


def main() -> int:
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("--short", action="store_true", help="the part that the tests run")
    parser.add_argument("--cases", type=int, default=0, help="instead of the usual number")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    given = parser.parse_args()
    unknown = set(given.names) - set(NAMES)
    if unknown:
        parser.error(f"no campaign {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    outcomes: list[Outcome] = []
    for name in given.names or NAMES:
        # in memory where that is possible, for the time of thousands of fsyncs; a cost is real
        place = "/dev/shm" if name != "cost" and Path("/dev/shm").is_dir() else None
        with tempfile.TemporaryDirectory(prefix=f"faults-{name}-", dir=place) as folder:
            own_surroundings(Path(folder))
            begin = time.monotonic()
            campaign = importlib.import_module(f"faults.{name}")
            for outcome in campaign.run(Path(folder), given.short, given.cases):
                outcome.seconds, begin = time.monotonic() - begin, time.monotonic()
                outcomes.append(outcome)
                _report(outcome)
    _table(outcomes)
    return 1 if any(outcome.failures for outcome in outcomes) else 0


def _report(outcome: Outcome) -> None:
    for line in outcome.notes:
        print(f"  {line}")
    for failure in outcome.failures[:SHOWN]:
        print(f"  FAILED {outcome.name}: {failure}")
    if len(outcome.failures) > SHOWN:
        print(f"  … and {len(outcome.failures) - SHOWN} more")
    print(
        f"{outcome.name}: {outcome.cases:,} cases, {len(outcome.failures)} failures, "
        f"{outcome.seconds:.0f} s",
        flush=True,
    )


def _table(outcomes: list[Outcome]) -> None:
    print(f"\n{'campaign':44} {'cases':>8} {'failures':>8} {'seconds':>8}")
    for o in outcomes:
        print(f"{o.name:44} {o.cases:8,} {len(o.failures):8,} {o.seconds:8.0f}")


if __name__ == "__main__":
    sys.exit(main())
