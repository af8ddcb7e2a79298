"""Natural-language understanding: the grammar of sentences that the engine understands, and its vocabulary."""
