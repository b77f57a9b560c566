"""The command line as `python -m fdjax`."""

from fdjax.cli import main

if __name__ == "__main__":
    main()
