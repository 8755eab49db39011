"""Every error that Boatyard raises on purpose, by who must act.

    BoatyardError
    ├── ConfigError      the author of the project file
    ├── DataError        the owner of the data
    ├── ArtifactError    whoever moved, cut or changed a file that we wrote
    ├── StorageError     the owner of the disk, the bucket or the registry
    ├── RequestError     the client that asked the model
    ├── Refused          nobody: a gate or a check did its work and said no
    ├── ClusterError     the administrator of the cluster, or whoever asked it for what it has not
    │   ├── Unreachable  … its API server does not answer
    │   ├── Forbidden    … a right is missing
    │   ├── MissingKind  … a controller (its CRD) is not installed
    │   ├── Conflict     … another has changed or owns it
    │   ├── RolledBack   … a new version did not serve; the former does
    │   └── Denied       … admission (a webhook, a quota, Pod Security) or validation said no
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


class ClusterError(BoatyardError):
    """The cluster cannot do what is asked; says what is missing and who can add it."""


class Unreachable(ClusterError):
    """The API server does not answer."""


class Forbidden(ClusterError):
    """Whoever asks has not the right to."""


class MissingKind(ClusterError):
    """The API server does not know the kind: its controller is not installed."""


class Conflict(ClusterError):
    """Another has made, changed or owns what was to be changed."""


class Denied(ClusterError):
    """A webhook, a quota, Pod Security or validation refused the object; the message is the server's own."""


class RolledBack(ClusterError):
    """A new version did not become ready or did not answer right; the former was put back and serves."""


class PeerLost(BoatyardError):
    """Another process of a run is gone or silent; started again, all go on from the last state."""


class Interrupted(BoatyardError):
    """A signal ended the work; what was done is saved and the next run goes on from it."""
