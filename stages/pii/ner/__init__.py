"""Names of persons, places and organisations by a model that was trained here (train/) and lives beside its lists."""
