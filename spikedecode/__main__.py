"""``python -m spikedecode`` is the command ``spikedecode``."""

from spikedecode.cli import main

if __name__ == "__main__":
    main()
