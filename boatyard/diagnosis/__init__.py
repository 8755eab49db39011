"""Why: the root cause of what is wrong with an object, in one sentence, with the evidence and the fix."""

from boatyard.diagnosis.causes import Diagnosis, Evidence
from boatyard.diagnosis.diagnose import CAUSES, Answer, diagnose, from_run
from boatyard.diagnosis.gathering import gather
from boatyard.diagnosis.made import diagnose_run, namespace_of
from boatyard.diagnosis.snapshot import ObjectReference, Right, Snapshot

__all__ = [
    "CAUSES",
    "Answer",
    "Diagnosis",
    "Evidence",
    "ObjectReference",
    "Right",
    "Snapshot",
    "diagnose",
    "diagnose_run",
    "from_run",
    "gather",
    "namespace_of",
]
