"""`python -m healthguard` is the `healthguard` command."""

from healthguard.cli import main

if __name__ == "__main__":
    main()
