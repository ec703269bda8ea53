"""Text that people read in terminals and pages, and that every catalog holds."""

# No control characters: PostgreSQL takes no NUL, and terminals obey those of C0 and C1. pydantic takes no half of a
# surrogate pair by itself.
PLAIN_TEXT = r"^[^\x00-\x1f\x7f-\x9f]*$"
