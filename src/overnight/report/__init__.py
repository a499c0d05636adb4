"""Findings in, documents and pictures out. Imports no torch."""
