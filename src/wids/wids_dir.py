"""Empty, as published: programs may import it."""
