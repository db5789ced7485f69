"""A study: arms that differ in one thing, compared by a plan that is written in advance."""
