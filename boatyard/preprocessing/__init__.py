"""Source files in, dataset out: read, cleaned, split without leakage, written as Parquet shards with their digests."""

from boatyard.preprocessing.work import Work, check, names, open_source, preprocess, source_digests, summary

__all__ = ["Work", "check", "names", "open_source", "preprocess", "source_digests", "summary"]
