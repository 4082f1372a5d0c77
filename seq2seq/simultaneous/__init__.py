"""Simultaneous translation: target tokens while the source still arrives."""
