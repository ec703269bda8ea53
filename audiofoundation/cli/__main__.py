"""`python -m audiofoundation.cli`."""

from audiofoundation.cli import main

if __name__ == "__main__":
    main()
