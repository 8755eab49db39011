"""The command `boatyard`, one file a subject: parse, call one function of `boatyard`, print.

A file here with a `Verb` in it is found by itself; what is heavy is imported when a verb runs.
"""
