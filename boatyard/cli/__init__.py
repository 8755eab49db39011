"""Verbs of the command, by subject; what is heavy is imported when a verb runs."""
