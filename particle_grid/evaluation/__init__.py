"""Measuring how well policies play: matches, scores, tables and films."""
