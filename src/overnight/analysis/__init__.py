"""A log in, findings out. Imports no torch."""
