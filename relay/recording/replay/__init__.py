"""A recording through today's rules."""
