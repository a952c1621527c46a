"""The published commands, their flags and checkpoints."""
