"""Tools that every other part may use, and that import none of them."""
