"""The ``cifar10`` command line, and the commands that need nothing but the kernel.

``main`` runs a command and turns every expected failure into one line; ``discovery`` finds the
commands of all installed stages through entry points, without importing them; ``command`` has the
classes of commands and groups; ``terminal`` prints; ``options`` holds the options that several
stages share. ``predict`` and ``doctor`` are commands.
"""
