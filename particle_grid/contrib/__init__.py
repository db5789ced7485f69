"""Tasks written as anybody may write theirs, each in one file and registered as an entry point (see docs/own.md)."""
