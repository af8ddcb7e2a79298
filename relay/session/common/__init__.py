"""What the sessions of all kinds of clients share."""
