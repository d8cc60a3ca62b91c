"""Transforms: tensors in, tensors out; they know no network."""
