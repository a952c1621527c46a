"""Signal -> Representation: fitting, all of it or some partitions."""
