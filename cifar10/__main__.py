"""``python -m cifar10`` and the ``cifar10`` program."""

import sys


def main() -> int:
    """Run the command line; return its exit code."""
    try:
        from cifar10.commands.main import main as run
    except KeyboardInterrupt:  # Ctrl-C while the command line itself is being imported
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
