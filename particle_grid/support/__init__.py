"""What every other part may use, and what knows of none of them."""
