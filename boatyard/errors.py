"""Every error that Boatyard raises on purpose, by who has to fix it.

    BoatyardError
    ├── ConfigError      the author of the project file
    │   ├── RecipeError  … the author of the recipe: its code raises, or gives what cannot be trained or exported
    │   └── UsageError   … whoever typed or called: an argument that names nothing, or two things
    ├── DataError        the owner of the data
    ├── ArtifactError    whoever moved, cut or changed a file that we wrote
    ├── StorageError     the owner of the disk, the bucket or the registry
    ├── RequestError     the client that sent the request
    ├── Refused          nobody: a gate or a check did its work and said no
    ├── ClusterError     the administrator of the cluster, or whoever asked it for what it has not
    │   ├── Unreachable  … its API server does not answer
    │   ├── Forbidden    … a right is missing
    │   ├── MissingKind  … a controller (its CRD) is not installed
    │   ├── Conflict     … another has changed or owns it
    │   ├── RolledBack   … a new version did not serve; the former does
    │   └── Denied       … admission (a webhook, a quota, Pod Security) or validation said no
    ├── StepFailed       whoever its message names: a step of a run ended with an error
    ├── PeerLost         nobody: another process of the run is gone; all are started again
    └── Interrupted      nobody: a signal came, the work so far is saved

An error says what it is about, and carries what was expected, what was found and how to fix it as fields; its one
line, in lower case, is made of them:

    ConfigError("version 7 of digits", expected="a version", found="1, 2", fix="name one of these")
    → version 7 of digits: expected a version, found 1, 2; name one of these
"""

from __future__ import annotations


class BoatyardError(Exception):
    """The root; the command prints its line and exits 1.

    `about` may be the whole sentence where there is nothing to compare; each field may be empty. The fields are
    attributes, not arguments of the exception, so that pickle, which calls the class with `args`, restores them too.
    """

    def __init__(self, about: str = "", *, expected: str = "", found: str = "", fix: str = "") -> None:
        super().__init__(about)
        self.about, self.expected, self.found, self.fix = about, expected, found, fix

    def __str__(self) -> str:
        compared = ", ".join(
            f"{word} {value}" for word, value in (("expected", self.expected), ("found", self.found)) if value
        )
        return "; ".join(part for part in (": ".join(filter(None, (self.about, compared))), self.fix) if part)

    def fields(self) -> dict[str, str]:
        """Return what the class is called with to make the same error again: what JSON carries to another process."""
        return {"about": self.about, "expected": self.expected, "found": self.found, "fix": self.fix}


class ConfigError(BoatyardError):
    """The project file or an option of the command asks for something that cannot be."""


class RecipeError(ConfigError):
    """A recipe's code raises, or gives what cannot be trained or exported; `about` opens with its file and line."""


class UsageError(ConfigError):
    """An argument that cannot mean anything, or may mean two things; the command exits 2."""


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


class StepFailed(BoatyardError):
    """A step of a run ended with an error; the message says which, why and where its log is."""


class Interrupted(BoatyardError):
    """A signal ended the work; what was done is saved and the next run goes on from it."""


def kind_of(error: BaseException) -> str:
    """Return what an error is called where another process reads it: the nearest class that stands here, or its own."""
    kinds = (kind.__name__ for kind in type(error).__mro__ if kind.__module__ == __name__)
    return next(kinds, type(error).__name__)
