"""``python -m mar`` and ``torchrun -m mar``: the same as ``mar``."""

from mar.cli.main import main

if __name__ == "__main__":
    main()
