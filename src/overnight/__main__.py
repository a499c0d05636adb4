"""The command `overnight`, and `python -m overnight`."""

import sys


def main() -> None:
    """Loading takes a moment, too, in which somebody may change their mind."""
    try:
        from . import cli

        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
