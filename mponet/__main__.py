"""``python -m mponet`` is the `mponet` command."""

from mponet.cli import main

if __name__ == "__main__":
    main()
