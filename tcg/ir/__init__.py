"""The intermediate representation: types, ops, builder, text form, verifier, interpreter."""
