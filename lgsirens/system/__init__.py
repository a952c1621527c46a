"""What every program needs: the console, output files, hardware, config files, strict plain data."""
