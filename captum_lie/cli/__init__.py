"""The command line ``captum-lie``; the program itself is :mod:`captum_lie.cli.application`.

Nothing is imported here, since adapters build their commands from the modules of this package.
"""
