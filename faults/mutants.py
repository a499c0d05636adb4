"""Each safeguard removed in turn, as an edit of the source that must fit exactly once: some test
must fail. A mutant that survives is a test that is missing.

Tests run in children forked from one process that has loaded torch, with a copy of src/ each.
"""
# ruff: noqa: E501  (an edit is quoted as it stands in the source)

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .tiny import Outcome

ROOT = Path(__file__).resolve().parent.parent
POWER = "tests/faults/test_campaigns.py -k powercut"
DISK = "tests/faults/test_campaigns.py -k disk"
DAMAGE = "tests/training/test_checkpoint.py tests/faults/test_campaigns.py -k corruption"
CHECKPOINT = "tests/training/test_checkpoint.py"
SESSION = "tests/training/test_session.py"
NIGHT = "tests/training/test_faults.py"
REPLAY = "tests/training/test_replay.py"


@dataclass
class Mutant:
    name: str
    file: str
    old: str
    new: str
    tests: str


MUTANTS = [
    Mutant("fsync of a checkpoint's files", "model/checkpoint.py",
           "            os.fsync(file.fileno())\n", "", POWER),
    Mutant("fsync of a checkpoint's folder", "model/checkpoint.py",
           "    fsync_path(folder)\n    return sum", "    return sum", POWER),
    Mutant("fsync of the folder of checkpoints", "model/checkpoint.py",
           "        raise\n    fsync_path(run.checkpoints)\n", "        raise\n", POWER),
    Mutant("fsync of the run folder at a save", "model/checkpoint.py",
           "    fsync_path(run.path)\n", "", POWER),
    Mutant("fsync of the log before a save", "training/saving.py",
           "            self.log.sync()\n", "", POWER),
    Mutant("fsync of what a new folder holds", "files.py",
           'for entry in [*temporary.rglob("*"), temporary]', "for entry in [temporary]", POWER),
    Mutant("fsync of a new folder", "files.py",
           'for entry in [*temporary.rglob("*"), temporary]', 'for entry in temporary.rglob("*")',
           POWER),
    Mutant("fsync of its parent", "files.py",
           "        fsync_path(path.parent)\n    except", "    except", POWER),
    Mutant("fsync of folders made above it", "files.py",
           "        path.mkdir(exist_ok=True)\n        fsync_path(path.parent)\n",
           "        path.mkdir(exist_ok=True)\n", POWER),
    Mutant("fsync in LogWriter.sync", "runfolder.py",
           "        self._flush()\n        os.fsync(self._fd)\n", "        self._flush()\n", POWER),
    Mutant("fsync of block losses", "training/measuring.py", ", durable=True", "", POWER),
    Mutant("fsync of new settings", "files.py",
           "                os.fsync(file.fileno())\n        temporary.replace(path)\n",
           "        temporary.replace(path)\n", POWER),
    Mutant("fsync of the folder of new settings", "files.py",
           "    if durable:\n        fsync_path(path.parent)\n", "", POWER),
    Mutant("rename that commits a checkpoint", "model/checkpoint.py",
           "_hidden(run, state.step)\n    run.checkpoints.mkdir",
           "run.checkpoint_path(state.step)\n    run.checkpoints.mkdir", POWER + " or unfinished"),
    Mutant("rename that makes the run folder", "files.py",
           "        temporary.rename(path)\n", "        shutil.copytree(temporary, path)\n", POWER),
    Mutant("pruned ones out of sight first", "model/checkpoint.py",
           "run.checkpoint_path(step).rename(_hidden(run, step))", "run.checkpoint_path(step)",
           POWER + " or pruned"),
    Mutant("temporary folders swept", "model/checkpoint.py",
           "        shutil.rmtree(left, ignore_errors=True)\n", "        pass\n", CHECKPOINT),
    Mutant("checksum of a checkpoint", "model/checkpoint.py",
           "        if digest != expected.sha256:", "        if False:", CHECKPOINT),
    Mutant("size of a checkpoint's files", "model/checkpoint.py",
           "        if size < 0 or size != expected.bytes:", "        if False:", CHECKPOINT),
    Mutant("step in the manifest", "model/checkpoint.py",
           "checkpoint_path(step).name != folder.name", "checkpoint_path(step) is None", DAMAGE),
    Mutant("links refused", "model/checkpoint.py", "path.lstat()", "path.stat()", CHECKPOINT),
    Mutant("the list of files in the manifest", "model/checkpoint.py",
           "    if set(manifest.files) != {MODEL, OPTIMIZER, STATE}:", "    if False:", CHECKPOINT),
    Mutant("verifying before resume", "model/checkpoint.py",
           "            verify(folder)\n        except DamagedError as error:\n            aside",
           "            pass\n        except DamagedError as error:\n            aside", CHECKPOINT),
    Mutant("verifying before load_model", "generation/load.py",
           "        verify(place)\n", "        pass\n", DAMAGE.replace("corruption", "corruption")),
    Mutant("shapes of the weights", "model/checkpoint.py",
           "    if set(own) != set(tensors):", "    if False:", CHECKPOINT),
    Mutant("prune protects the best", "model/checkpoint.py", " if step != best_step]", "]", CHECKPOINT),
    Mutant("prune protects the last", "model/checkpoint.py", "max(1, keep)", "keep + 1",
           CHECKPOINT),
    Mutant("nothing committed is overwritten", "model/checkpoint.py",
           "    if state.step in run.checkpoint_steps():", "    if False:", CHECKPOINT),
    Mutant("room is checked before a save", "training/saving.py",
           "            if free < snapshot.bytes:", "            if False:", NIGHT + " -k room"),
    Mutant("a full disk costs a save only", "training/saving.py",
           '            self.event("disk", f"checkpoint not saved: {error}")\n            return False\n',
           "            raise\n", NIGHT + " -k full_disk"),
    Mutant("the last state is tried again", "training/saving.py",
           "range(SAVE_TRIES if must else 1)", "range(1)", DISK + " or disk"),
    Mutant("refused rows wait", "runfolder.py",
           "with contextlib.suppress(OSError):  # waits for the next row, or for `close`\n            self._flush()",
           "with contextlib.suppress(OSError):  # waits for the next row, or for `close`\n            self._flush()\n        self._waiting = b''",
           NIGHT + " -k log"),
    Mutant("the end of the log is tried again", "runfolder.py", "range(CLOSE_TRIES - 1)", "range(0)",
           "tests/training/test_log.py"),
    Mutant("sealing of a torn tail", "runfolder.py",
           'self._waiting = b"\\n" if self.sealed else b""', 'self._waiting = b""', NIGHT + " -k torn"),
    Mutant("dropout keyed by step", "training/update.py",
           '"dropout", step, shift, micro', '"dropout", shift, micro', "tests/training/test_keys.py"),
    Mutant("dropout keyed at all", "training/update.py",
           '                torch.manual_seed(key(train.seed, "dropout", step, shift, micro))\n',
           "                pass\n", SESSION),
    Mutant("dropout keyed by micro-step", "training/update.py",
           '"dropout", step, shift, micro', '"dropout", step, shift', "tests/training/test_keys.py"),
    Mutant("samples keyed by their own seed", "generation/sample.py",
           'torch.Generator().manual_seed(key(sampling.seed + i, "sample"))', "torch.default_generator",
           "tests/training/test_keys.py"),
    Mutant("position in the data", "training/update.py",
           "(step - 1) * train.batch + shift", "shift", "tests/training/test_keys.py"),
    Mutant("other data after going back", "training/update.py",
           "(step - 1) * train.batch + shift", "(step - 1) * train.batch",
           "tests/training/test_keys.py"),
    Mutant("order is a function of the seed", "text/order.py", "SeedSequence([seed, pass_])",
           "SeedSequence([pass_])", "tests/text/test_order.py"),
    Mutant("order is a function of the pass", "text/order.py", "SeedSequence([seed, pass_])",
           "SeedSequence([seed])", "tests/text/test_order.py"),
    Mutant("optimizer state is loaded", "training/saving.py",
           "            updater.optimizers.load(checkpoint.read_tensors(folder, checkpoint.OPTIMIZER))",
           "            pass", SESSION),
    Mutant("state of the n-gram tables", "training/optimizers.py",
           ' | {"rows": self.rows.state}', "", "tests/training/test_rows.py -k by_name"),
    Mutant("weights are loaded", "training/saving.py",
           "        checkpoint.load_into(updater.model, weights, folder)\n        try:",
           "        try:", SESSION),
    Mutant("the state is loaded", "training/saving.py",
           "    return checkpoint.read_state(folder)", "    return State(checkpoint.read_state(folder).step)",
           SESSION),
    Mutant("sums of the open window", "training/saving.py",
           "    return checkpoint.read_state(folder)",
           "    state = checkpoint.read_state(folder)\n    state.window = type(state.window)()\n    return state", SESSION),
    Mutant("what was measured is remembered", "training/loop.py",
           "        self.state.measured = True\n", "", REPLAY + " -k early_end or measured"),
    Mutant("replayed evaluations are saved as best", "training/resume.py",
           "    log.write(row)\n", "", REPLAY),
    Mutant("best across attempts, of rows that count", "runfolder.py",
           "    rows = current(rows)\n    pretrained", "    rows = list(rows)\n    pretrained",
           "tests/training/test_log.py"),
    Mutant("the best rule: lowest", "runfolder.py", "return min(evals, key", "return max(evals, key",
           "tests/training/test_log.py"),
    Mutant("the best rule: first of equals", "runfolder.py", "(r.val_loss, r.step)", "(r.val_loss, -r.step)",
           "tests/training/test_log.py"),
    Mutant("best is saved", "training/saving.py", "best.copy() if best.is_finite() else None", "None", REPLAY),
    Mutant("best is saved before what comes after", "training/saving.py",
           "self.save_held() and (same or ", "(", REPLAY),
    Mutant("what is held does not change", "training/saving.py", "best.copy() if", "best if",
           REPLAY),
    Mutant("what was gone back from is not held", "training/saving.py",
           "self._held, self.best_step = None, best_step", "self.best_step = best_step", REPLAY),
    Mutant("best is saved where a run fails", "training/loop.py",
           "        self.saver.save_held()  # where the run failed\n", "", REPLAY),
    Mutant("the lock", "runlock.py",
           "            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)", "            pass", NIGHT + " -k owner"),
    Mutant("losses that are not finite", "training/update.py",
           "if not is_finite(update.nats, update.grad_norm):", "if False:", NIGHT),
    Mutant("weights that are not finite", "training/saving.py",
           "if not snapshot.is_finite():", "if False:", NIGHT + " -k never_saved"),
    Mutant("going back after strikes", "training/loop.py",
           "if self.state.strikes >= STRIKES:", "if False:", NIGHT),
    Mutant("going back at most so often", "training/loop.py",
           "if bad.rewinds >= REWINDS:", "if False:", NIGHT + " -k hopeless"),
    Mutant("no row after going back", "training/loop.py",
           "            if not self._update():\n                continue\n", "            self._update()\n", REPLAY + " -k row_is_due"),
    Mutant("the first signal saves", "training/loop.py",
           '                self._save("signal", must=True)\n                raise StoppedError\n',
           "                raise StoppedError\n", SESSION),
    Mutant("a closed terminal ends nothing", "training/progress.py",
           "        except OSError:  # who", "        except ZeroDivisionError:  # who",
           "tests/training/test_terminal.py"),
    Mutant("a finished run is left alone", "training/resume.py",
           "and (done := _done(read, settings)):", "and (done := \"\"):", SESSION + " -k finished"),
    Mutant("a session that was killed at its end is none that finished", "training/resume.py",
           'if getattr(sessions[-1], "reason", "") != "finished":', "if False:", REPLAY),
    Mutant("an early end is the end after a kill", "training/loop.py",
           "        if self._ended_early():  # and", "        if False:  # and", REPLAY + " -k early_end"),
    Mutant("changed text is refused", "training/resume.py",
           "    elif fingerprint != prepared.facts[\"fingerprint\"]:", "    elif False:", SESSION + " -k other_text"),
    Mutant("changed settings are classed", "training/changes.py",
           "    if levels.index(level) > levels.index(accept):", "    if False:", NIGHT + " -k changed_settings"),
    Mutant("inexactness is said", "training/changes.py",
           "if before.get(n) != now[n]]", "if False]", NIGHT),
    Mutant("escaping in HTML", "report/html.py", "autoescape=True", "autoescape=False",
           "tests/report/test_views.py"),
    Mutant("escaping in Markdown", "shown.py",
           "    flat = _SPECIAL.sub(r\"\\\\\\1\", flat)\n", "", "tests/report/test_views.py"),
    Mutant("control characters on the terminal", "shown.py",
           "c if c in \"\\n\\t\" or is_inert(c) else", "c if True else", "tests/training/test_terminal.py"),
]  # fmt: skip


def run(folder: Path, short: bool, cases: int) -> Iterator[Outcome]:
    words = [sys.executable, "-m", "faults.mutants", str(folder)]
    chosen = MUTANTS[:3] if short else MUTANTS
    done = subprocess.run(
        [*words, *(mutant.name for mutant in chosen)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    outcome = Outcome("mutation: each safeguard removed", len(chosen))
    for line in done.stdout.splitlines():
        outcome.notes.append(line)
        if "SURVIVED" in line or "DOES NOT FIT" in line:
            outcome.failures.append(line.strip())
    if len(outcome.notes) < len(chosen):
        outcome.failures.append("the runner of the mutants ended early")
    yield outcome


def serve(folder: Path, names: list[str]) -> None:
    """Try the mutants named, one line each."""
    import pytest  # noqa: F401
    import torch

    torch.set_num_threads(1)
    import torch._dynamo

    for mutant in MUTANTS:
        if names and mutant.name not in names:
            continue
        begin = time.monotonic()
        caught = _caught(mutant, folder)
        print(f"{mutant.name:44} {caught:80.80} {time.monotonic() - begin:4.0f} s", flush=True)


def _caught(mutant: Mutant, folder: Path) -> str:
    copy = folder / "src"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(ROOT / "src", copy)
    file = copy / "overnight" / mutant.file
    source = file.read_text()
    if source.count(mutant.old) != 1:
        return f"DOES NOT FIT: {source.count(mutant.old)} times in {mutant.file}"
    file.write_text(source.replace(mutant.old, mutant.new))
    output = folder / "output.txt"
    pid = os.fork()
    if pid == 0:
        _test(copy, mutant.tests, output)
    _, status = os.waitpid(pid, 0)
    text = output.read_text(errors="replace")
    failed = re.search(r"^(?:FAILED|ERROR) (?:tests/)?(\S+)", text, re.M)
    if status == 0:
        return "SURVIVED " + mutant.tests
    if failed:
        return failed.group(1)
    return f"DOES NOT FIT: no test ran: {text[-300:]!r}"


def _test(source: Path, tests: str, output: Path) -> None:
    """In a child: pytest with the package of `source`."""
    import pytest

    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.path.insert(0, str(source))
    os.environ["PYTHONPATH"] = str(source)
    sys.dont_write_bytecode = True
    words, _, chosen = tests.partition(" -k ")
    given = [*words.split(), *(["-k", chosen] if chosen else [])]
    code = 3
    try:
        code = int(
            pytest.main([*given, "-x", "-q", "-p", "no:cacheprovider", "--timeout", "120", "-rfE"])
        )
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2:])
