"""Natural-language understanding: the sentences that can be understood, and their words."""
