"""Responses that nobody asked for: what tasks and raters must survive, whatever a model writes."""

HOSTILE = (
    "",
    " \t\n\r\x0b\x0c",
    "checked " * 5_000,
    "thanks ! " * 5_000,
    "9" * 5_000 + " + 1 = " + "9" * 5_000,
    "3 + 7 = ten . answer ten",
    "٣ + ٧ = ١٠ . answer ١٠",
    "² + ½ = ∞ . answer -",
    "3 + + = = . . . answer answer 5",
    "answer 5 . answer 5 . answer 6 answer",
    "nan + inf = nan . answer 1e999",
    "\x00\x1b[31m\ufeff\u202e\u200d\U0001f469\u200d\U0001f680 . checked",
    "\ud83d lone surrogate",
    "a" * 200_000,
    "--1 + 2 = 1 . answer --1",
    ". " * 10_000,
    "<end> <pad> <reply>",
)
