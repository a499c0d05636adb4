"""One file per log format, each giving the same tables."""
