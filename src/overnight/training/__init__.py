"""The loop, optimizers, schedule, evaluation, checkpoints, progress."""
