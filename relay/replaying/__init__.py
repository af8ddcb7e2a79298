"""Recordings brought back to life: as the model for any client, and as the client for any relay or model."""
