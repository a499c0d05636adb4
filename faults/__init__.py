"""The fault campaigns: what happens in the night, enumerated. `./dev faults` runs them all."""
