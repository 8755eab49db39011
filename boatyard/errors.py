"""Every error that Boatyard raises on purpose, by who must act.

    BoatyardError
    ├── ConfigError      the author of the project file
    ├── DataError        the owner of the data
    ├── ArtifactError    whoever moved, cut or changed a file that we wrote
    ├── StorageError     the owner of the disk, the bucket or the registry
    ├── RequestError     the client that asked the model
    ├── Refused          nobody: a gate or a check did its work and said no
    ├── PeerLost         nobody: another process of the run is gone; all are started again
    └── Interrupted      nobody: a signal came, the work so far is saved

A message says what was wanted, what was found and what to do, in lower case, values in it.
"""

from __future__ import annotations


class BoatyardError(Exception):
    """The root; the command prints its message and exits 1."""


class ConfigError(BoatyardError):
    """The project file or an option of the command asks for something that cannot be."""


class DataError(BoatyardError):
    """The data is missing, damaged or not what the project says that it is."""


class ArtifactError(BoatyardError):
    """A file that an earlier stage wrote is missing or is not what its manifest says."""


class StorageError(BoatyardError):
    """A disk, bucket or registry does not take or give what it should."""


class RequestError(BoatyardError):
    """A request does not fit the model's schema."""


class Refused(BoatyardError):
    """A gate, a comparison or a verification said no."""


class PeerLost(BoatyardError):
    """Another process of a run is gone or silent; started again, all go on from the last state."""


class Interrupted(BoatyardError):
    """A signal ended the work; what was done is saved and the next run goes on from it."""
