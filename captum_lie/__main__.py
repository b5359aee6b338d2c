"""``python -m captum_lie``: the command line."""

from captum_lie.cli.application import main

if __name__ == "__main__":
    main()
