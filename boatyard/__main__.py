"""The command `boatyard`."""

from boatyard.cli.main import cli, main

__all__ = ["cli", "main"]

if __name__ == "__main__":
    main()
