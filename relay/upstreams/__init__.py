"""Realtime endpoints: which dialect they speak, where they are, and the credentials that they take."""
