"""Measures of a converted or trained network: how faithful it is, and what it costs."""
