"""From settings and a text to the end of a run: the plan, updates, the loop, what it saves."""
