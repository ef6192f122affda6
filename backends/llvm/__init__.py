"""IR to LLVM: lowering, stencils."""
