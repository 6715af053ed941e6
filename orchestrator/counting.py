"""Numbers of things in words, for whoever shows them."""


def counted(count: int, one: str, many: str | None = None) -> str:
    """`1 label`, `2 labels`; `many` where an s does not make the plural."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
