"""One KFP component a file: a signature and one call into the library; no step runs pip, the image has it all."""
