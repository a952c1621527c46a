"""Fuzzing: `targets.py` is the table of what is fuzzed, `__main__.py` the campaign."""
