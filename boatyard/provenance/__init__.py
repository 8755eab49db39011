"""What a result was computed by: the code of a recipe, exactly, as cache, resume and lineage compare it."""

from boatyard.provenance.code import Code, code_of, code_of_module, plug_ins
from boatyard.provenance.inputs import Here, Inputs
from boatyard.provenance.observer import name, observing

__all__ = ["Code", "Here", "Inputs", "code_of", "code_of_module", "name", "observing", "plug_ins"]
