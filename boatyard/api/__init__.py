"""The Python API, one file a subject: what the command prints is what these functions return.

`boatyard` itself gives each of them by name, imported when it is first asked for. Here alone, and in the command, the
library reaches outward to its pipelines and its server, inside functions.
"""
