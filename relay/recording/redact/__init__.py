"""A recording without what must not go to somebody else."""
