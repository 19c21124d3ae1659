"""Operations of the equivariant layers, one file an op, each with the eager version that specifies it."""
