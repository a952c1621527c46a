"""Trials: campaigns that try to break what docs/reliability.md promises. `make kills`, `make power`, `make load`."""
