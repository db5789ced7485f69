"""How well policies play: matches, scores, tables, films."""
