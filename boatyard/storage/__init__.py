"""Where things are kept: one URI for a folder, on this machine, in a claim that is mounted, or in a bucket."""

from boatyard.storage.uris import BUCKETS, OTHERS, bound, in_bucket, local, open, parse, uri

__all__ = ["BUCKETS", "OTHERS", "bound", "in_bucket", "local", "open", "parse", "uri"]
