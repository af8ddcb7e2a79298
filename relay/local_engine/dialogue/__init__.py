"""What the local engine answers."""
