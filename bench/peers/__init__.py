"""Comparison with other servers: the same model and images, one worker on one core each.

Every peer is a folder with a server written as its documentation shows, and with the pinned
packages of an environment of its own. Nothing in those folders is imported from here: they are
scripts that run in their own environments.
"""
