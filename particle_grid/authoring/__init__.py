"""Writing tasks, policies and heads of one's own: files to start from, and checks of what has become of them."""
