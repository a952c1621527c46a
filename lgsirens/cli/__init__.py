"""The command `lgsirens`."""
