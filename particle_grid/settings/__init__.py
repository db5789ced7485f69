"""From the command line and files of settings to typed values."""
