"""Runs of a pipeline on this machine: their folders, their steps' progress, what is shown of them, why they failed."""
