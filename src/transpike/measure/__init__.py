"""Measures networks on images: conversions, firing, operations, rebuilt images, stages of student and teacher."""
