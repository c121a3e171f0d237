"""The reasons and permissions of the application that a feature declares."""

from accord_generator.feature import Feature


def reasons_of(feature: Feature) -> list[tuple[str, str, str, str]]:
    """The application's reasons that the feature declares: name, code, comment and message."""
    n = feature.names
    missing = f"The {n.words} does not exist"
    found = [
        (
            f"REASON_{n.constant}_NOT_FOUND",
            "NOT_FOUND",
            f"{missing} or belongs to another owner. Metadata: `{n.id}`.",
            f"{missing}. Check the {n.id}.",
        )
    ]
    for field in feature.uniques:
        taken = f"Another {n.words} has the same {field.name.replace('_', ' ')}."
        found.append(
            (f"REASON_{n.constant}_{field.name.upper()}_TAKEN", "ALREADY_EXISTS", taken, f"{taken} Choose another.")
        )
    return found


def permissions_of(feature: Feature) -> list[tuple[str, str, str]]:
    """Name of the value, stored name and comment. None for rows of accounts: their owners need no permission."""
    n = feature.names
    if not feature.has_permissions:
        return []
    return [
        (f"PERMISSION_{n.constants}_READ", f"{n.plural}.read", f"Read {n.many}."),
        (f"PERMISSION_{n.constants}_WRITE", f"{n.plural}.write", f"Create, change and delete {n.many}."),
    ]
