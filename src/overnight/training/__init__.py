"""From settings and a text to the end of a run: plan, updates, the loop, what it measures and saves."""
