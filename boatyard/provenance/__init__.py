"""What a result was computed by: the code of a recipe, exactly, as cache, resume and lineage compare it."""

from boatyard.provenance.code import Code, code_of

__all__ = ["Code", "code_of"]
