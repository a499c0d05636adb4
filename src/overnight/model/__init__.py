"""The decoder grammar: layers, decode state, parameter counts."""
