"""Attention backends: for each one the form that it wants a mask in, and the function that computes with it."""
