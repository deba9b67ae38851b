"""The commands of the command line, one a module: `add_arguments(parser)` and `main(args)`.

Their modules import no torch; only running a command does, so that `--help` is quick.
"""
