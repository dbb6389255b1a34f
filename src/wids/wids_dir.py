"""Empty, as published: programs may import it."""

__all__: list[str] = []
